-- The meter: reads off an answer, inside Envoy, what it used.
--
-- Envoy calls envoy_on_request and envoy_on_response, at the end of this file. The answer passes through in chunks, cut
-- anywhere; each is scanned once and forgotten, so no body is ever held. What was seen goes into the dynamic metadata
-- `extauthz.usage`, which the access log carries to the server:
--
--   input_tokens, output_tokens, cache_read_input_tokens, cache_creation_input_tokens, reasoning_output_tokens,
--   cache_creation_1h_input_tokens, cache_read_audio_input_tokens, audio_input_tokens, audio_output_tokens,
--   image_input_tokens, image_output_tokens
--                absent until the upstream reports them; as reported, also if absurd (negative, a string)
--   images       pictures in the answer so far
--   milliseconds, queries, searches   what the upstream counted of a sound, of searches in documents and in the web
--   model        the answer's own name of its model
--   service_tier what the answer says about the tier that it was made in
--   upstream_cost   what the upstream says that it cost, in USD, as it was written; absent when that is nothing
--   turns        how many answers of a WebSocket's session the counts are the sum of
--   pending      true while the answer is but the promise of one: a background response, a batch, a video
--   answer_id    the id of what is promised
--   result       of a read that may show what has become of a promise (extauthz.result), once all of it was seen: over,
--                or failed
--   events       SSE events with a JSON object so far, items of a streamed array, messages of a WebSocket
--   text_bytes   bytes of generated text so far: content, reasoning, refusals, names and arguments of tool calls
--   reasoning_bytes   those of text_bytes that were reasoning
--   finished     true once the answer's own end was seen: a finish_reason, message_stop, response.completed, [DONE],
--                or the last byte of a body that ended as HTTP says; of a WebSocket, while no turn is under way
--   models       how many top-level keys of the request's whole body, in any case, are `model` or may lead to another
--                one; only when the Check saw but the beginning of the body and asks (extauthz.truncated)
--   injected     true when stream_options were written into the request
--   error        why there is nothing, or no more, to report
--
-- Who can forge it? A client can make a model or an API echo nearly anything: in texts, schemas, tools, metadata.
-- So only the JSON paths in the map of interest below count, never a name wherever it stands. Everything off these
-- paths is skipped by its brackets and quotes.
--
-- Parts, each using the ones above it: Chunk and Scanner; Texts, Counts and the map of interest; Report; JsonBody and
-- EventStream; WebSocket; the request; Envoy. Each is a file; to Envoy they are one script.

local byte, char, lower, sub = string.byte, string.char, string.lower, string.sub
local find, gsub, match = string.find, string.gsub, string.match
local ceil, floor, min = math.ceil, math.floor, math.min

-- The longest name that we look for, with every letter written as \u00XX, is shorter.
local KEY_BYTES_MAX = 256
-- A number, a literal or a word of interest; more is not one.
local VALUE_BYTES_MAX = 64
-- The longest name of a model that is told.
local MODEL_BYTES_MAX = 256
-- The longest id of an answer that is told.
local ID_BYTES_MAX = 128
-- The longest name of a service tier that is told.
local TIER_BYTES_MAX = 32
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
--   word(report, text)        a string, whole; nil when it is longer than `max` of the node, or VALUE_BYTES_MAX
--   text(report, bytes)       a piece of a string, by its length only; an empty string has none
--   open(report), close(report)   an object or array begins, or ends
--   span(report, from, to)    where the value stands, for a document in one piece
-- What has no node is skipped, to any depth, by counting brackets: the stack is never deeper than the map.

-- Another parser reads "us\u0061ge" as usage, so this one does. Our names are ASCII.
local function unescaped(text)
  return (gsub(text, "\\u00(%x%x)", function(hex)
    return char(tonumber(hex, 16))
  end))
end

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
  self.started = false -- the document is an object, or the array that the map expects
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
    return self:value(chunk, from, to, at)
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
function Scanner:value(chunk, from, to, at)
  local node = self.node
  if self.top == 0 and at ~= OPEN_OBJECT and (at ~= OPEN_ARRAY or not self.map.items) then
    self.state, self.other = self.ignored, ""
    return from
  end
  self.value_from = from
  if at == QUOTE then
    local quote = chunk:next('"', from + 1)
    if quote <= to and quote < chunk:next("\\", from + 1) then
      return self:whole_string(chunk, from + 1, quote - 1)
    end
    self.word, self.word_max = node and node.word and "", node and node.max or VALUE_BYTES_MAX
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

-- A string as most are: all of it is in the chunk, and nothing in it is escaped.
function Scanner:whole_string(chunk, from, last)
  local node = self.node
  local bytes = last - from + 1
  if not node then
    self.expects = COMMA
    return last + 2
  elseif node.word then
    node.word(self.report, bytes <= (node.max or VALUE_BYTES_MAX) and sub(chunk.text, from, last) or nil)
  elseif node.text and bytes > 0 then
    node.text(self.report, bytes)
  end
  return self:ended(last + 2)
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
    key = unescaped(key)
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
