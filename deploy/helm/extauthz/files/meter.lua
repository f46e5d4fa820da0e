-- The meter: reads off an answer, inside Envoy, what it used.
--
-- Envoy calls envoy_on_request and envoy_on_response, at the end of this file. The answer passes through in chunks, cut
-- anywhere; each is scanned once and forgotten, so no body is ever held. What was seen goes into the dynamic metadata
-- `extauthz.usage`, which the access log carries to the server:
--
--   input_tokens, output_tokens, cache_read_input_tokens, cache_creation_input_tokens, reasoning_output_tokens
--                absent until the upstream reports them; as reported, also if absurd (negative, a string)
--   events       SSE events with a JSON object so far
--   text_bytes   bytes of generated text so far: content, reasoning, refusals, names and arguments of tool calls
--   reasoning_bytes   those of text_bytes that were reasoning
--   finished     true once the answer's own end was seen: a finish_reason, message_stop, response.completed, [DONE],
--                or the last byte of a body that ended as HTTP says
--   models       how many top-level keys of the request's whole body are `model`, in any case; only when the Check saw but
--                the beginning of the body and asks (extauthz.truncated)
--   injected     true when stream_options were written into the request
--   error        why there is nothing, or no more, to report
--
-- Who can forge it? A client can make a model or an API echo nearly anything: in texts, schemas, tools, metadata.
-- So only the JSON paths in the map of interest below count, never a name wherever it stands. Everything off these
-- paths is skipped by its brackets and quotes.
--
-- Parts, each using the ones above it: Chunk, Scanner, the map of interest, Report, JsonBody, EventStream, Envoy.

local byte, char, lower, sub = string.byte, string.char, string.lower, string.sub
local find, gsub, match = string.find, string.gsub, string.match
local min = math.min

-- The longest name that we look for, with every letter written as \u00XX, is shorter.
local KEY_BYTES_MAX = 256
-- A number, a literal or a word of interest; more is not one.
local VALUE_BYTES_MAX = 64
-- An SSE event that may be taken out again is held back up to here. One that only reports usage is a tenth of it.
local HELD_BYTES_MAX = 16 * 1024

local QUOTE, COMMA, COLON = byte('"'), byte(","), byte(":")
local KEY, VALUE = "key", "value" -- what a scanner may expect besides COMMA and COLON
local OPEN_OBJECT, CLOSE_OBJECT, OPEN_ARRAY, CLOSE_ARRAY = byte("{"), byte("}"), byte("["), byte("]")
local SPACE, TAB, LF, CR = 32, 9, 10, 13
local LETTER_U = byte("u")

-- ---------------------------------------------------------------------------------------------------------------------
-- Chunk: a piece of the body that knows where in it the next byte of a kind stands.
--
-- A plain string.find is memchr, a hundred times as fast as a pattern. What it found is kept until the scanner has
-- passed it, so each byte is looked at a fixed number of times however the kinds are mixed.

local Chunk = {}
Chunk.__index = Chunk

function Chunk.new(text)
  return setmetatable({ text = text, size = #text, ahead = {} }, Chunk)
end

-- The position of the next `wanted` at or after `from`; one past the end when there is none.
function Chunk:next(wanted, from)
  local at = self.ahead[wanted]
  if not at or at < from then
    at = find(self.text, wanted, from, true) or self.size + 1
    self.ahead[wanted] = at
  end
  return at
end

-- ---------------------------------------------------------------------------------------------------------------------
-- Scanner: walks one JSON document, in as many pieces as it comes, and calls what the map says.
--
-- The map is a tree of nodes. A node says where to go on (`members` by name, `default` for other names, `items` of an
-- array) and whom to call, each with the report first:
--   scalar(report, literal)   a number, true, false or null
--   word(report, text)        a string, whole; nil when it is longer than VALUE_BYTES_MAX
--   text(report, bytes)       a piece of a string, by its length only; an empty string has none
--   open(report), close(report)   an object or array begins, or ends
--   span(report, from, to)    where the value stands, for a document in one piece
-- What has no node is skipped, to any depth, by counting brackets: the stack is never deeper than the map.

local Scanner = {}
Scanner.__index = Scanner

function Scanner.new(map, report)
  local scanner = setmetatable({ map = map, report = report, stack = {}, objects = {} }, Scanner)
  scanner:reset()
  return scanner
end

function Scanner:reset()
  self.state = self.between
  self.expects = VALUE
  self.top = 0 -- the depth of the stack
  self.node = self.map -- the node of the value that comes next
  self.in_object = false -- whether it is a member, as opposed to an item
  self.escaped = false
  self.started = false -- the document is an object
  self.done = false -- and it was closed
  self.other = nil -- the beginning of a document that is no object
end

-- Scan the bytes from..to of a chunk.
function Scanner:feed(chunk, from, to)
  while from <= to do
    from = self.state(self, chunk, from, to)
  end
end

-- State: between two tokens.
function Scanner:between(chunk, from, to)
  local at = byte(chunk.text, from)
  while at == SPACE or at == LF or at == CR or at == TAB do
    from = from + 1
    if from > to then
      return from
    end
    at = byte(chunk.text, from)
  end
  local expects = self.expects
  if expects == VALUE then
    return self:value(chunk, from, at)
  elseif expects == KEY and at == QUOTE then
    return self:key(chunk, from + 1, to)
  elseif expects == COLON and at == COLON then
    self.expects = VALUE
    return from + 1
  elseif expects == COMMA and at == COMMA then
    self.expects = self.in_object and KEY or VALUE
    self.node = self.stack[self.top].items
    return from + 1
  elseif (expects == COMMA or expects == KEY) and (at == CLOSE_OBJECT or at == CLOSE_ARRAY) then
    return self:leave(from)
  end
  self.state = self.ignored
  return from
end

-- A key begins. Nearly always it and its colon are in the chunk, and can be taken in one step.
function Scanner:key(chunk, from, to)
  local quote = chunk:next('"', from)
  if quote < to and quote < chunk:next("\\", from) and byte(chunk.text, quote + 1) == COLON then
    local node = self.stack[self.top]
    self.node = node.members[sub(chunk.text, from, quote - 1)] or node.default
    self.expects = VALUE
    return quote + 2
  end
  self.word, self.word_max = "", KEY_BYTES_MAX
  self.state, self.after = self.in_string, self.key_ended
  return from
end

-- A value begins.
function Scanner:value(chunk, from, at)
  local node = self.node
  if self.top == 0 and at ~= OPEN_OBJECT then
    self.state, self.other = self.ignored, ""
    return from
  end
  self.value_from = from
  if at == QUOTE then
    self.word, self.word_max = node and node.word and "", VALUE_BYTES_MAX
    self.state, self.after = self.in_string, self.string_ended
    return from + 1
  elseif at == OPEN_OBJECT or at == OPEN_ARRAY then
    if node and node.open then
      node.open(self.report)
    end
    local object = at == OPEN_OBJECT
    if node and (object and node.members or not object and node.items) then
      return self:enter(from, node, object)
    end
    self.depth, self.state = 0, self.skip
    return from
  elseif at == CLOSE_ARRAY and not self.in_object then
    return self:leave(from)
  end
  self.word, self.state = "", self.scalar
  return from
end

function Scanner:enter(from, node, object)
  self.top = self.top + 1
  self.stack[self.top], self.objects[self.top] = node, object
  self.in_object, self.started = object, true
  self.expects = object and KEY or VALUE
  self.node = node.items
  return from + 1
end

function Scanner:leave(from)
  local node = self.stack[self.top]
  self.top = self.top - 1
  self.in_object = self.objects[self.top]
  if node.close then
    node.close(self.report)
  end
  self.expects = COMMA
  if self.top == 0 then
    self.done, self.state = true, self.ignored
  end
  return from + 1
end

-- A value that is no tracked object or array has ended at the byte before `from`.
function Scanner:ended(from)
  local node = self.node
  self.state, self.expects = self.between, COMMA
  if node and node.span then
    node.span(self.report, self.value_from, from - 1)
  end
  return from
end

-- State: inside a string. Of a key or a word the raw bytes are kept, of a text only their number is told.
function Scanner:in_string(chunk, from, to)
  if self.escaped then
    self.escaped = false
    self:take(chunk, from, from)
    if byte(chunk.text, from) == LETTER_U then
      self:count(-2) -- \uXXXX: the u and four digits, for a character that has three bytes at most
    end
    return from + 1
  end
  local stop = min(chunk:next('"', from), chunk:next("\\", from), to + 1)
  if stop > from then
    self:take(chunk, from, stop - 1)
  end
  if stop > to then
    return stop
  elseif byte(chunk.text, stop) == QUOTE then
    return self.after(self, stop + 1)
  end
  self.escaped = true
  if self.word then
    self:take(chunk, stop, stop)
  end
  return stop + 1
end

function Scanner:take(chunk, from, to)
  local word = self.word
  if not word then
    self:count(to - from + 1)
  elseif #word + to - from < self.word_max then
    self.word = word .. sub(chunk.text, from, to)
  else
    self.word, self.word_max = false, 0
  end
end

function Scanner:count(bytes)
  local node = self.node
  if not self.word and self.after == self.string_ended and node and node.text then
    node.text(self.report, bytes)
  end
end

function Scanner:key_ended(from)
  local node, key = self.stack[self.top], self.word
  if key and find(key, "\\", 1, true) then
    -- Another parser reads "us\u0061ge" as usage, so this one does. Our names are ASCII.
    key = gsub(key, "\\u00(%x%x)", function(hex)
      return char(tonumber(hex, 16))
    end)
  end
  self.node = key and node.members[key] or node.default
  self.state, self.expects = self.between, COLON
  return from
end

function Scanner:string_ended(from)
  local node = self.node
  if node and node.word then
    node.word(self.report, self.word or nil)
  end
  return self:ended(from)
end

function Scanner:skipped_string_ended(from)
  self.state = self.skip
  return from
end

-- State: inside a number, true, false or null.
function Scanner:scalar(chunk, from, to)
  local stop = min(chunk:next(",", from), chunk:next("}", from), chunk:next("]", from), to + 1)
  local node = self.node
  if node and node.scalar then
    self.word = self.word .. sub(chunk.text, from, min(stop - 1, from + VALUE_BYTES_MAX - #self.word))
    if stop <= to then
      node.scalar(self.report, match(self.word, "^%S*"))
    end
  end
  return stop <= to and self:ended(stop) or stop
end

-- State: inside an object or array that nobody is interested in.
function Scanner:skip(chunk, from, to)
  local quote = chunk:next('"', from)
  local opens = min(chunk:next("{", from), chunk:next("[", from))
  local closes = min(chunk:next("}", from), chunk:next("]", from))
  local stop = min(quote, opens, closes)
  if stop > to then
    return to + 1
  elseif stop == quote then
    local last = chunk:next('"', stop + 1)
    if last <= to and last < chunk:next("\\", stop + 1) then
      return last + 1
    end
    self.word = nil
    self.state, self.after = self.in_string, self.skipped_string_ended
  elseif stop == opens then
    self.depth = self.depth + 1
  else
    self.depth = self.depth - 1
    if self.depth == 0 then
      return self:ended(stop + 1)
    end
  end
  return stop + 1
end

-- State: nothing that comes now can count, because the document is over, no object, or broken.
function Scanner:ignored(chunk, from, to)
  if self.other and #self.other < VALUE_BYTES_MAX then
    self.other = self.other .. sub(chunk.text, from, min(to, from + VALUE_BYTES_MAX))
  end
  return to + 1
end

-- ---------------------------------------------------------------------------------------------------------------------
-- The map of interest: where usage, text and the end of an answer stand in the APIs' JSON.

local function finish(report)
  report.finished = true
end

-- The client would miss this value if the event were taken out.
local function speak(report)
  report.speaks = true
end

local function speak_unless_null(report, literal)
  report.speaks = report.speaks or literal ~= "null"
end

local function speak_text(report, bytes)
  report.text_bytes = report.text_bytes + bytes
  report.speaks = true
end

local function think(report, bytes)
  report.reasoning_bytes = report.reasoning_bytes + bytes
  speak_text(report, bytes)
end

local FINISH = {
  text = function(report) -- some servers send "" until there is a reason
    report.finished, report.speaks = true, true
  end,
}
local SOMETHING = { scalar = speak_unless_null, text = speak, open = speak }
local TEXT = { text = speak_text }
local THOUGHT = { text = think }
local PARTS = { text = speak_text, open = speak, items = { members = { text = TEXT } } }
local FUNCTION = { members = { name = TEXT, arguments = TEXT } }
local TOOL_CALLS = { open = speak, items = { members = { ["function"] = FUNCTION } } }
local MESSAGE = {
  members = {
    content = PARTS,
    reasoning = THOUGHT,
    reasoning_content = THOUGHT,
    refusal = TEXT,
    tool_calls = TOOL_CALLS,
    function_call = { open = speak, members = FUNCTION.members },
  },
  default = SOMETHING,
}
local CHOICES = {
  open = function(report)
    report.choices = true
  end,
  items = {
    members = { index = {}, finish_reason = FINISH, text = TEXT, delta = MESSAGE, message = MESSAGE },
    default = SOMETHING,
  },
}

-- Token counts are staged under the upstream's own names until their object closes.
local function tokens(name)
  return {
    scalar = function(report, literal)
      if literal ~= "null" then
        report.staged[name] = tonumber(literal) or literal
      end
    end,
    word = function(report, text)
      report.staged[name] = text
    end,
  }
end

local CACHED = { members = { cached_tokens = tokens("cached_tokens") } }
local REASONING = { members = { reasoning_tokens = tokens("reasoning_tokens") } }
local USAGE = {
  open = function(report)
    report.staged = {}
  end,
  close = function(report)
    report:commit()
  end,
  members = {
    prompt_tokens_details = CACHED, -- Chat Completions, Completions, Embeddings
    completion_tokens_details = REASONING,
    input_tokens_details = CACHED, -- Responses
    output_tokens_details = REASONING,
  },
}
for _, name in ipairs({
  "prompt_tokens", -- Chat Completions, Completions, Embeddings
  "completion_tokens",
  "input_tokens", -- Responses, Anthropic
  "output_tokens",
  "cache_read_input_tokens", -- Anthropic
  "cache_creation_input_tokens",
  "promptTokenCount", -- Gemini
  "candidatesTokenCount",
  "cachedContentTokenCount",
  "thoughtsTokenCount",
}) do
  USAGE.members[name] = tokens(name)
end

local LAST_TYPES = { ["message_stop"] = true, ["response.completed"] = true, ["response.incomplete"] = true }

local ANSWER = { members = { usage = USAGE, usageMetadata = USAGE, choices = CHOICES, content = PARTS } }
local EVENT = {
  members = {
    usage = USAGE,
    usageMetadata = USAGE,
    choices = CHOICES,
    message = { members = { usage = USAGE } }, -- Anthropic's message_start
    response = { members = { usage = USAGE } }, -- Responses
    delta = { text = speak_text, members = { text = TEXT, thinking = THOUGHT, partial_json = TEXT } },
    type = {
      word = function(report, text)
        if LAST_TYPES[text] then
          finish(report)
        end
      end,
    },
  },
}

-- ---------------------------------------------------------------------------------------------------------------------
-- Report: what was seen so far, and what of it the metadata does not have yet.

local Report = {}
Report.__index = Report

function Report.new()
  return setmetatable({
    events = 0,
    text_bytes = 0,
    reasoning_bytes = 0,
    finished = false,
    staged = {}, -- token counts of the usage object that is being read, by the upstream's names
    reported = {}, -- those of complete ones
    fresh = false, -- whether there are new ones among them
    told = {}, -- what the metadata has
  }, Report)
end

-- An SSE event begins: what is asked of a single event is open again.
function Report:next_event()
  self.used, self.choices, self.speaks = false, false, false
end

-- Whether the event is there for usage alone: `choices: []`, or LiteLLM's one choice with an empty delta.
function Report:usage_only()
  return self.used and self.choices and not self.speaks
end

-- A usage object is complete. Of a value that comes twice the later counts: streams report running totals.
function Report:commit()
  for name, value in pairs(self.staged) do
    self.reported[name] = value
  end
  self.used = next(self.staged) ~= nil
  self.fresh = self.fresh or self.used
end

local function sum(...)
  local total = 0
  for _, value in pairs({ ... }) do
    total = total + (type(value) == "number" and value or 0)
  end
  return total
end

-- Call set(name, value) for everything that is new since the last time.
function Report:write(set)
  if self.events > 0 then
    self:tell(set, "events", self.events)
  end
  if self.text_bytes > 0 then
    self:tell(set, "text_bytes", self.text_bytes)
  end
  if self.reasoning_bytes > 0 then
    self:tell(set, "reasoning_bytes", self.reasoning_bytes)
  end
  if self.finished then
    self:tell(set, "finished", true)
  end
  if self.fresh then
    self.fresh = false
    self:tell_tokens(set)
  end
end

function Report:tell(set, name, value)
  if value ~= nil and self.told[name] ~= value then
    self.told[name] = value
    set(name, value)
  end
end

-- The reported counts under our names. As with OpenAI, input includes what was cached, output what was reasoned.
function Report:tell_tokens(set)
  local seen = self.reported
  local input = seen.prompt_tokens or seen.input_tokens or seen.promptTokenCount
  local output = seen.completion_tokens or seen.output_tokens
  local read = seen.cached_tokens or seen.cache_read_input_tokens or seen.cachedContentTokenCount
  local created = seen.cache_creation_input_tokens
  if not seen.prompt_tokens and type(seen.input_tokens) == "number" and not seen.cached_tokens then
    input = sum(input, read, created) -- Anthropic's input_tokens leave out what was cached
  end
  if seen.candidatesTokenCount then
    output = sum(seen.candidatesTokenCount, seen.thoughtsTokenCount) -- so do Gemini's candidates with its thoughts
  end
  self:tell(set, "input_tokens", input)
  self:tell(set, "output_tokens", output)
  self:tell(set, "cache_read_input_tokens", read)
  self:tell(set, "cache_creation_input_tokens", created)
  self:tell(set, "reasoning_output_tokens", seen.reasoning_tokens or seen.thoughtsTokenCount)
end

-- ---------------------------------------------------------------------------------------------------------------------
-- The two kinds of answers. Each takes the body piece by piece and gives back what goes on to the client.

local JsonBody = {}
JsonBody.__index = JsonBody

function JsonBody.new(report)
  return setmetatable({ scanner = Scanner.new(ANSWER, report), held = "" }, JsonBody)
end

function JsonBody:feed(text)
  self.scanner:feed(Chunk.new(text), 1, #text)
  return text
end

function JsonBody:finish()
  return ""
end

-- EventStream: text/event-stream. With `edits`, events that only report usage are left out; for that it holds back the
-- event that is not complete yet. A client could not have used that part of an event either.
local EventStream = {}
EventStream.__index = EventStream

local FIELD = "data:"

function EventStream.new(report, edits)
  local stream = setmetatable({ scanner = Scanner.new(EVENT, report), report = report, edits = edits }, EventStream)
  stream.held = ""
  stream.overflowed = false -- the event is too large to be held back: it passes
  stream.after_cr = false -- the last byte was a CR, which a LF may complete
  stream:next_line()
  stream:next_event()
  return stream
end

function EventStream:next_line()
  self.matched = 0 -- how many bytes of "data:" this line began with
  self.is_data = nil -- nil until that is decided
end

function EventStream:next_event()
  self.scanner:reset()
  self.report:next_event()
end

function EventStream:feed(text)
  local chunk, from = Chunk.new(text), 1
  self.output = self.edits and {} or nil
  self.event_from = 1
  if self.after_cr and text ~= "" then
    from = byte(text, 1) == LF and 2 or 1
    self.after_cr = false
    self:line_ended(text, from - 1)
  end
  while from <= #text do
    from = self:line(chunk, from)
  end
  return self:passed(text)
end

-- Take in the line that begins or goes on at `from`, to its end or the chunk's.
function EventStream:line(chunk, from)
  local text = chunk.text
  local stop = min(chunk:next("\n", from), chunk:next("\r", from))
  while self.is_data == nil and from < stop do
    if byte(text, from) ~= byte(FIELD, self.matched + 1) then
      self.is_data = false
    else
      self.matched = self.matched + 1
      self.is_data = self.matched == #FIELD or nil
      from = from + 1
    end
  end
  if stop > #text then
    if self.is_data then
      self.scanner:feed(chunk, from, #text)
    end
    return stop
  end
  if self.is_data then
    -- The line's end too: data of several lines is joined by it, and white space to JSON.
    self.scanner:feed(chunk, from, stop)
  end
  if byte(text, stop) == CR then
    if stop == #text then
      self.after_cr = true
      return stop + 1
    elseif byte(text, stop + 1) == LF then
      stop = stop + 1
    end
  end
  self:line_ended(text, stop)
  return stop + 1
end

-- A line is over, with the byte at `last`. An empty one ends the event.
function EventStream:line_ended(text, last)
  local empty = self.is_data == nil and self.matched == 0
  self:next_line()
  if not empty then
    return
  end
  local dropped = self:event_ended()
  if self.output then
    if not dropped then
      self.output[#self.output + 1] = self.held .. sub(text, self.event_from, last)
    end
    self.held, self.event_from, self.overflowed = "", last + 1, false
  end
end

-- Count the event, and tell whether the client must not get it.
function EventStream:event_ended()
  local scanner, report = self.scanner, self.report
  if scanner.started then
    report.events = report.events + 1
  elseif scanner.other and find(scanner.other, "^%[DONE%]%s*$") then
    finish(report)
  end
  local dropped = self.edits and not self.overflowed and scanner.done and report:usage_only()
  self:next_event()
  return dropped
end

-- What of this chunk, and of what was held back before it, goes on now.
function EventStream:passed(text)
  local output = self.output
  if not output then
    return text
  end
  local rest = self.held .. sub(text, self.event_from)
  self.overflowed = self.overflowed or #rest > HELD_BYTES_MAX
  if self.overflowed then
    output[#output + 1] = rest
    rest = ""
  end
  self.held = rest
  return table.concat(output)
end

-- The stream is over; sloppy servers leave out the last empty line. Gives what was held back.
function EventStream:finish()
  if self:event_ended() then
    return ""
  end
  return self.held
end

-- ---------------------------------------------------------------------------------------------------------------------
-- The request: write one member into the top level of a JSON object.

-- Each member of that name gets the value; when there is none, it becomes the first. Nil when the body is no object.
local function with_member(body, name, json)
  local spans = {}
  local span = function(_, from, to)
    spans[#spans + 1] = { from = from, to = to }
  end
  local scanner = Scanner.new({ members = { [name] = { span = span } } }, {})
  scanner:feed(Chunk.new(body), 1, #body)
  if not scanner.done then
    return nil
  elseif #spans == 0 then
    local first = find(body, "{", 1, true)
    local comma = find(body, "^%s*}", first + 1) and "" or ","
    return sub(body, 1, first) .. '"' .. name .. '":' .. json .. comma .. sub(body, first + 1)
  end
  local parts, from = {}, 1
  for _, place in ipairs(spans) do
    parts[#parts + 1] = sub(body, from, place.from - 1) .. json
    from = place.to + 1
  end
  return table.concat(parts) .. sub(body, from)
end

-- A reader that counts the keys of a JSON object which some upstream may take for its model. What a client hides behind
-- the part that the Check saw must not be paid at the price of the part that it saw.
local ModelCount = {}
ModelCount.__index = ModelCount

function ModelCount.new()
  local count = setmetatable({ models = 0 }, ModelCount)
  local node = {
    word = function()
      count.models = count.models + 1
    end,
    scalar = function()
      count.models = count.models + 1
    end,
    open = function()
      count.models = count.models + 1
    end,
  }
  local members = setmetatable({}, {
    __index = function(_, key)
      return lower(key) == "model" and node or nil
    end,
  })
  count.scanner = Scanner.new({ members = members }, {})
  return count
end

function ModelCount:feed(text)
  self.scanner:feed(Chunk.new(text), 1, #text)
end

-- The number, nil when the body was no whole JSON object.
function ModelCount:result()
  return self.scanner.done and self.models or nil
end

-- ---------------------------------------------------------------------------------------------------------------------
-- Envoy.

local CHECK_NAMESPACE = "envoy.filters.http.ext_authz"
local USAGE_NAMESPACE = "extauthz.usage"

-- The metadata object is taken anew each time: one that is kept over a chunk is dead ("used outside of proper scope").
local function metadata(handle)
  return handle:streamInfo():dynamicMetadata()
end

local function note(handle, name, value)
  metadata(handle):set(USAGE_NAMESPACE, name, value)
end

local function write(handle, report)
  local target = metadata(handle)
  report:write(function(name, value)
    target:set(USAGE_NAMESPACE, name, value)
  end)
end

-- Scan a chunk, write down what was seen, change the chunk if it must be; gives the bytes that go on.
local function scan(handle, reader, report, chunk)
  local text = chunk:getBytes(0, chunk:length())
  local passed = reader:feed(text)
  write(handle, report)
  if passed ~= text then
    chunk:setBytes(passed)
  end
  return passed
end

-- Whatever fails in here must not fail the answer: the client gets all of it, and the report says that it is not whole.
local function meter(handle, reader, report)
  local last, passed
  for chunk in handle:bodyChunks() do
    local held = reader.held
    local fine, result = pcall(scan, handle, reader, report, chunk)
    if not fine then
      if held ~= "" then
        chunk:setBytes(held .. chunk:getBytes(0, chunk:length()))
      end
      note(handle, "error", "the meter failed: " .. tostring(result))
      return
    end
    last, passed = chunk, result
  end
  local rest = reader:finish()
  if rest ~= "" then
    -- Fails after trailers, when the last chunk is gone; clients ignore the half event that is lost then.
    pcall(last.setBytes, last, passed .. rest)
  end
  finish(report)
  write(handle, report)
end

-- The body passes on while it is looked through. The count is written at its end only: half a count would be a lie.
local function count_models(handle)
  local count = ModelCount.new()
  for chunk in handle:bodyChunks() do
    if not pcall(count.feed, count, chunk:getBytes(0, chunk:length())) then
      return
    end
  end
  local models = count:result()
  if models then
    note(handle, "models", models)
  end
end

function envoy_on_request(handle)
  local check = metadata(handle):get(CHECK_NAMESPACE)
  if check == nil then
    return
  elseif check["extauthz.truncated"] == true then
    return count_models(handle)
  elseif check["extauthz.inject"] ~= true then
    return
  end
  local body = handle:body()
  if body == nil then
    return
  end
  local text = body:getBytes(0, body:length())
  local fine, changed = pcall(with_member, text, "stream_options", check["extauthz.stream_options"])
  if fine and changed then
    body:setBytes(changed)
    note(handle, "injected", true)
  else
    note(handle, "error", "stream_options could not be written into the request")
  end
end

function envoy_on_response(handle)
  local check = metadata(handle):get(CHECK_NAMESPACE)
  if check == nil or check["extauthz.r"] == nil then
    return
  end
  local headers = handle:headers()
  local encoding = headers:get("content-encoding")
  if encoding ~= nil and encoding ~= "identity" then
    note(handle, "error", "the upstream compressed its answer")
    return
  end
  local report, reader = Report.new(), nil
  if find(lower(headers:get("content-type") or ""), "^%s*text/event%-stream") then
    local usage = metadata(handle):get(USAGE_NAMESPACE)
    local edits = usage ~= nil and usage["injected"] == true
    if edits then
      headers:remove("content-length")
    end
    reader = EventStream.new(report, edits)
  else
    reader = JsonBody.new(report)
  end
  meter(handle, reader, report)
end

-- For tests, which cut documents at every byte without Envoy; Envoy ignores what a script returns. Inside a block, since
-- Envoy Gateway writes a call behind a script to check it, and nothing may stand behind a bare return.
do
  return {
    Report = Report,
    JsonBody = JsonBody,
    EventStream = EventStream,
    ModelCount = ModelCount,
    with_member = with_member,
  }
end
