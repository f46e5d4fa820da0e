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

-- ---------------------------------------------------------------------------------------------------------------------
-- Texts: where what a model wrote, and the end of an answer, stand in the APIs' JSON.

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

-- A piece is text of which the kind stands beside it, before it or behind it: MUTE for what is no text, THINKING.
local MUTE, THINKING = "mute", "thinking"

local function piece(report, bytes)
  if report.piece_kind == MUTE then
    return speak(report)
  end
  report.piece_bytes = report.piece_bytes + bytes
  if report.piece_kind == THINKING then
    return think(report, bytes)
  end
  speak_text(report, bytes)
end

local function piece_is(report, kind)
  if report.piece_kind then
    return
  end
  report.piece_kind = kind
  if kind == MUTE then
    report.text_bytes = report.text_bytes - report.piece_bytes
  else
    report.reasoning_bytes = report.reasoning_bytes + report.piece_bytes
  end
end

local FINISH = {
  text = function(report) -- some servers send "" until there is a reason
    report.finished, report.speaks = true, true
  end,
}
local SOMETHING = { scalar = speak_unless_null, text = speak, open = speak }
local TEXT = { text = speak_text }
local THOUGHT = { text = think }
local PARTS = { text = speak_text, open = speak, items = { members = { text = TEXT, thinking = THOUGHT } } }
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
    audio = { open = speak, members = { transcript = TEXT } },
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
-- Gemini
local CANDIDATE_PART = {
  open = function(report)
    report:next_piece()
  end,
  members = {
    text = { text = piece },
    thought = {
      scalar = function(report, literal)
        if literal == "true" then
          piece_is(report, THINKING)
        end
      end,
    },
    functionCall = { members = { name = TEXT } },
  },
}
local CANDIDATES = {
  open = function(report)
    report.candidates = true
  end,
  items = { members = { finishReason = FINISH, content = { members = { parts = { items = CANDIDATE_PART } } } } },
}

-- ---------------------------------------------------------------------------------------------------------------------
-- Counts: what stands in the objects that report usage.
--
-- They are staged under the upstream's own names until their object closes. Names that mean different things at
-- different places are staged under names that say the place.

local function stage(name)
  return function(report, text)
    if text ~= "null" then
      report.staged[name] = tonumber(text) or text
    end
  end
end

local function tokens(name)
  return {
    scalar = stage(name),
    word = function(report, text)
      report.staged[name] = text
    end,
  }
end

local INPUT_DETAILS = {
  members = {
    cached_tokens = tokens("cached_tokens"),
    cached_tokens_details = { members = { audio_tokens = tokens("cached_audio_tokens") } },
    cache_write_tokens = tokens("cache_write_tokens"),
    -- An entry that is kept for longer than an hour has no other price here.
    cache_write_tokens_details = { members = { ttl_12h_tokens = tokens("ephemeral_1h_input_tokens") } },
    cache_creation_tokens = tokens("cache_write_tokens"), -- LiteLLM
    cache_creation_token_details = {
      members = { ephemeral_1h_input_tokens = tokens("ephemeral_1h_input_tokens") },
    },
    web_search_requests = tokens("web_search_requests"),
    audio_tokens = tokens("input_audio_tokens"),
    image_tokens = tokens("input_image_tokens"),
  },
}
local OUTPUT_DETAILS = {
  members = {
    reasoning_tokens = tokens("reasoning_tokens"),
    text_tokens = tokens("output_text_tokens"),
    audio_tokens = tokens("output_audio_tokens"),
    image_tokens = tokens("output_image_tokens"),
  },
}

-- Gemini's lists of {modality, tokenCount}, in any order; `names` says where the tokens of a modality are staged.
local function modalities(names)
  return {
    items = {
      open = function(report)
        report.modality, report.modality_tokens = nil, 0
      end,
      members = {
        modality = {
          word = function(report, text)
            report.modality = text
          end,
        },
        tokenCount = {
          scalar = function(report, literal)
            report.modality_tokens = tonumber(literal) or 0
          end,
        },
      },
      close = function(report)
        local name = names[report.modality or ""]
        if name then
          report.staged[name] = (report.staged[name] or 0) + report.modality_tokens
        end
      end,
    },
  }
end
local INPUT_MODALITIES = modalities({ AUDIO = "input_audio_tokens", IMAGE = "input_image_tokens" })

local USAGE = {
  open = function(report)
    report.staged = {}
  end,
  close = function(report)
    report:commit()
  end,
  members = {
    prompt_tokens_details = INPUT_DETAILS, -- Chat Completions, Completions, Embeddings
    completion_tokens_details = OUTPUT_DETAILS,
    input_tokens_details = INPUT_DETAILS, -- Responses, Images
    output_tokens_details = OUTPUT_DETAILS,
    input_token_details = INPUT_DETAILS, -- Realtime, Transcriptions
    output_token_details = OUTPUT_DETAILS,
    cache_creation = { -- Anthropic
      members = {
        ephemeral_5m_input_tokens = tokens("ephemeral_5m_input_tokens"),
        ephemeral_1h_input_tokens = tokens("ephemeral_1h_input_tokens"),
      },
    },
    server_tool_use = { members = { web_search_requests = tokens("web_search_requests") } },
    promptTokensDetails = INPUT_MODALITIES, -- Gemini
    toolUsePromptTokensDetails = INPUT_MODALITIES,
    cacheTokensDetails = modalities({ AUDIO = "cached_audio_tokens" }),
    candidatesTokensDetails = modalities({
      TEXT = "output_text_tokens",
      AUDIO = "output_audio_tokens",
      IMAGE = "output_image_tokens",
    }),
    cost = { -- LiteLLM, OpenRouter; kept as it is written, since a float would change it
      scalar = function(report, literal)
        report.staged.cost = (tonumber(literal) or 0) > 0 and literal or nil
      end,
    },
  },
}
for _, name in ipairs({
  "prompt_tokens", -- Chat Completions, Completions, Embeddings
  "completion_tokens",
  "total_tokens",
  "input_tokens", -- Responses, Anthropic
  "output_tokens",
  "cache_read_input_tokens", -- Anthropic
  "cache_creation_input_tokens",
  "promptTokenCount", -- Gemini
  "toolUsePromptTokenCount",
  "candidatesTokenCount",
  "cachedContentTokenCount",
  "thoughtsTokenCount",
  "seconds", -- Transcriptions
  "search_units", -- Rerank
}) do
  USAGE.members[name] = tokens(name)
end

-- ---------------------------------------------------------------------------------------------------------------------
-- The map of interest: where texts, counts and all else that is told stand in an answer, an event, and a message.

local MODEL = {
  max = MODEL_BYTES_MAX,
  word = function(report, text)
    report.model = text and gsub(unescaped(text), "\\/", "/") or report.model
  end,
}
local SERVICE_TIER = {
  max = TIER_BYTES_MAX,
  word = function(report, text)
    report.service_tier = text or report.service_tier
  end,
}
USAGE.members.service_tier = SERVICE_TIER -- Anthropic

-- An item of a response's output. The searches among them cost money; a page that is opened does not.
local OUTPUT_ITEM = {
  open = function(report)
    report.item, report.action = nil, "search"
  end,
  members = {
    type = {
      word = function(report, text)
        report.item = text
      end,
    },
    action = {
      members = {
        type = {
          word = function(report, text)
            report.action = text
          end,
        },
      },
    },
  },
  close = function(report)
    report.searched = report.item == "web_search_call" and report.action == "search"
  end,
}
local OUTPUT_ITEM_WITH_TEXT = {
  open = OUTPUT_ITEM.open,
  members = setmetatable({
    content = PARTS,
    summary = { items = { members = { text = THOUGHT } } },
    name = TEXT,
    arguments = TEXT,
  }, { __index = OUTPUT_ITEM.members }),
  close = function(report)
    OUTPUT_ITEM.close(report)
    report:count_search()
  end,
}

local PENDING = {}
for _, status in ipairs({
  "queued", -- Responses, Videos
  "in_progress",
  "validating", -- Batches
  "finalizing",
  "cancelling",
  "canceling", -- Anthropic's batches
  "pending", -- others' videos
  "processing",
  "running",
}) do
  PENDING[status] = true
end
local RESULTS = {}
for _, status in ipairs({
  "completed",
  "incomplete", -- Responses that met a maximum
  "cancelled", -- what was made by then was made
  "canceled",
  "expired", -- Batches
  "ended", -- Anthropic's batches
  "succeeded", -- others' videos
}) do
  RESULTS[status] = "over"
end
for _, status in ipairs({ "failed", "error" }) do
  RESULTS[status] = "failed"
end
local STATUS = {
  word = function(report, text)
    report.status = text
    report.pending = PENDING[text or ""] or false
  end,
}
local ANSWER_ID = {
  max = ID_BYTES_MAX,
  word = function(report, text)
    report.answer_id = text and match(text, "^[!-~]+$") or nil
  end,
}

-- An object with a status is over, so that its usage was seen if it has any: a client that leaves before has seen none.
local function object_over(report)
  report.result = RESULTS[report.status or ""]
end

-- A picture of an answer: what is a list of something else has none of these.
local PICTURE = {
  text = function(report)
    report.picture = true
  end,
}
local PICTURES = {
  items = {
    open = function(report)
      report.picture = false
    end,
    members = { b64_json = PICTURE, url = PICTURE },
    close = function(report)
      if report.picture then
        report:count_image()
      end
    end,
  },
}

local GEMINI = {
  open = function(report)
    report.candidates = false
  end,
  members = { usageMetadata = USAGE, candidates = CANDIDATES, modelVersion = MODEL },
  close = function(report)
    if report.candidates then
      report.events = report.events + 1
    end
  end,
}
local ANSWER = {
  members = {
    id = ANSWER_ID,
    object = {
      word = function(report, text)
        report.batch = text == "batch"
      end,
    },
    usage = USAGE,
    usageMetadata = USAGE,
    choices = CHOICES,
    candidates = CANDIDATES,
    content = PARTS, -- Anthropic
    output = { items = OUTPUT_ITEM_WITH_TEXT }, -- Responses
    text = TEXT, -- Transcriptions
    duration = {
      scalar = function(report, literal)
        report.duration, report.fresh = tonumber(literal), true
      end,
    },
    data = PICTURES,
    meta = { members = { billed_units = USAGE } }, -- Cohere
    model = MODEL,
    modelVersion = MODEL,
    service_tier = SERVICE_TIER,
    status = STATUS,
    processing_status = STATUS, -- Anthropic's batches
  },
  items = GEMINI, -- a stream without alt=sse is one array
  close = object_over,
}

local LAST_TYPES = {
  ["message_stop"] = true,
  ["response.completed"] = true,
  ["response.incomplete"] = true,
  ["response.failed"] = true,
  ["image_generation.completed"] = true,
  ["image_edit.completed"] = true,
  ["transcript.text.done"] = true,
  ["speech.audio.done"] = true,
}
local PICTURE_TYPES = { ["image_generation.completed"] = true, ["image_edit.completed"] = true }

-- Which deltas are no plain text; of sound, the transcript is, and comes as well.
local PIECE_KINDS = {
  ["response.reasoning_text.delta"] = THINKING,
  ["response.reasoning_summary_text.delta"] = THINKING,
  ["response.output_audio.delta"] = MUTE,
  ["response.audio.delta"] = MUTE,
}

local function typed(report, text)
  report.type = text
  local kind = text and PIECE_KINDS[text]
  if kind then
    piece_is(report, kind)
  end
end

local EVENT = {
  members = {
    usage = USAGE,
    usageMetadata = USAGE,
    choices = CHOICES,
    candidates = CANDIDATES,
    message = { members = { usage = USAGE, model = MODEL } }, -- Anthropic's message_start
    response = { -- Responses
      open = function(report)
        report.status = nil
      end,
      members = {
        id = ANSWER_ID,
        usage = USAGE,
        model = MODEL,
        service_tier = SERVICE_TIER,
        status = {
          word = function(report, text)
            report.status = text
          end,
        },
        background = {
          scalar = function(report, literal)
            report.background = literal == "true"
          end,
        },
      },
      close = function(report)
        if report.status then
          -- Without its stream, any other response ends as well.
          report.pending = PENDING[report.status] and report.background or false
        end
        report:promise()
        object_over(report)
      end,
    },
    item = OUTPUT_ITEM,
    delta = { text = piece, members = { text = TEXT, thinking = THOUGHT, partial_json = TEXT } },
    model = MODEL,
    modelVersion = MODEL,
    service_tier = SERVICE_TIER,
    type = {
      word = function(report, text)
        typed(report, text)
        if text and LAST_TYPES[text] then
          finish(report)
        end
      end,
    },
  },
}

-- A message of a WebSocket: Realtime, and Responses by WebSocket.
local TURN_BEGINS = { ["response.created"] = true }
local TURN_ENDS = {
  ["response.done"] = true,
  ["response.completed"] = true,
  ["response.incomplete"] = true,
  ["response.failed"] = true,
}
local TURN = {
  members = {
    usage = USAGE, -- of what was said to the model, when a session transcribes
    response = { members = { usage = USAGE, model = MODEL, service_tier = SERVICE_TIER } },
    session = { members = { model = MODEL } },
    item = OUTPUT_ITEM,
    delta = { text = piece },
    type = { word = typed },
  },
}

-- ---------------------------------------------------------------------------------------------------------------------
-- Report: what was seen so far, and what of it the metadata does not have yet.

local Report = {}
Report.__index = Report

function Report.new()
  local report = setmetatable({
    events = 0,
    text_bytes = 0,
    reasoning_bytes = 0,
    images = 0,
    searches = 0,
    finished = false,
    pending = false,
    reads = false, -- whether what is read may be the result of what was promised
    batch = false, -- whether it is a batch
    session = false, -- whether usage adds up over turns
    answering = false, -- whether one of them is under way
    strange = false, -- whether something came that may have been one
    staged = {}, -- token counts of the usage object that is being read, by the upstream's names
    reported = {}, -- those of complete ones
    turns = 0, -- how many there were
    fresh = false, -- whether there are new ones among them
    told = {}, -- what the metadata has
  }, Report)
  report:next_event()
  return report
end

-- An SSE event begins: what is asked of a single event is open again.
function Report:next_event()
  self.used, self.choices, self.speaks, self.searched = false, false, false, false
  self.type, self.piece_bytes, self.piece_kind = nil, 0, nil
end

function Report:next_piece()
  self.piece_bytes, self.piece_kind = 0, nil
end

-- An event is complete: what its type means for its other members is known.
function Report:event_over()
  self.events = self.events + 1
  local kind = self.type
  if self.searched and kind == "response.output_item.done" then
    self:count_search()
  elseif kind and PICTURE_TYPES[kind] then
    self:count_image()
  end
end

-- A message of a session is complete. Where the API is another, whatever it sends is taken for an answer without usage;
-- where it is the one that is known, there is no answer before the first turn.
function Report:message_over()
  local kind = self.type
  self.strange = self.strange or kind == nil
  self.answering = kind and TURN_BEGINS[kind] or self.answering and not TURN_ENDS[kind]
  self.finished = not self.answering and (self.turns > 0 or self.strange)
end

function Report:count_search()
  if self.searched then
    self.searches, self.fresh = self.searches + 1, true
  end
end

function Report:count_image()
  self.images, self.fresh = self.images + 1, true
end

-- Whether the event is there for usage alone: `choices: []`, or LiteLLM's one choice with an empty delta.
function Report:usage_only()
  return self.used and self.choices and not self.speaks
end

-- A usage object is complete. Of a value that comes twice the later counts, since streams report running totals; those
-- of a session's turns add up.
function Report:commit()
  for name, value in pairs(self.staged) do
    local before = self.session and self.reported[name]
    if type(before) == "number" and type(value) == "number" then
      value = before + value
    end
    self.reported[name] = value
  end
  self.used = next(self.staged) ~= nil
  if self.used then
    self.turns, self.fresh = self.turns + 1, true
  end
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
  self:tell_count(set, "events", self.events)
  self:tell_count(set, "text_bytes", self.text_bytes)
  self:tell_count(set, "reasoning_bytes", self.reasoning_bytes)
  local told = self.told
  if self.finished ~= (told.finished or false) then
    self:tell(set, "finished", self.finished)
  end
  if self.pending ~= (told.pending or false) then
    self:tell(set, "pending", self.pending)
  end
  self:promise()
  self:tell(set, "answer_id", self.promised_id)
  if self.reads then
    self:tell_result(set)
  end
  if self.model ~= told.model or self.service_tier ~= told.service_tier then
    self:tell(set, "model", self.model)
    self:tell(set, "service_tier", self.service_tier)
  end
  if self.fresh then
    self.fresh = false
    self:tell_tokens(set)
    self:tell_parts(set)
    self:tell_units(set)
    self:tell_upstream_cost(set)
  end
end

-- What is promised is told by its id, whatever becomes of it in the same answer.
function Report:promise()
  if self.pending then
    self.promised_id = self.answer_id
  end
end

-- What became of a promise. A batch does not say in which tier it was made.
function Report:tell_result(set)
  self.service_tier = self.service_tier or self.batch and "batch" or nil
  self:tell(set, "result", self.result)
end

function Report:tell(set, name, value)
  if value ~= nil and self.told[name] ~= value then
    self.told[name] = value
    set(name, value)
  end
end

-- Nothing of it is what an absent count means as well.
function Report:tell_count(set, name, count)
  if count ~= 0 or self.told[name] then
    self:tell(set, name, count)
  end
end

-- The reported counts under our names. As with OpenAI, input includes what was cached, output what was reasoned.
function Report:tell_tokens(set)
  local seen = self.reported
  local input = seen.prompt_tokens or seen.input_tokens or seen.promptTokenCount
  local output = seen.completion_tokens or seen.output_tokens
  local read = seen.cached_tokens or seen.cache_read_input_tokens or seen.cachedContentTokenCount
  local created = seen.cache_creation_input_tokens or seen.cache_write_tokens
  if not created and (seen.ephemeral_5m_input_tokens or seen.ephemeral_1h_input_tokens) then
    created = sum(seen.ephemeral_5m_input_tokens, seen.ephemeral_1h_input_tokens)
  end
  local cache_is_inside = seen.prompt_tokens or seen.cached_tokens or seen.cache_write_tokens
  if not cache_is_inside and type(seen.input_tokens) == "number" then
    input = sum(input, read, created) -- Anthropic's input_tokens leave out what was cached
  end
  if seen.candidatesTokenCount or seen.thoughtsTokenCount then
    output = sum(seen.candidatesTokenCount, seen.thoughtsTokenCount) -- so do Gemini's candidates with its thoughts
  end
  if type(seen.promptTokenCount) == "number" then
    input = sum(input, seen.toolUsePromptTokenCount) -- and its prompt with what tools said
  end
  if input == nil and type(seen.total_tokens) == "number" then
    input = seen.total_tokens - sum(output) -- Rerank, and some servers' Embeddings
  end
  self:tell(set, "input_tokens", input)
  self:tell(set, "output_tokens", output)
  self:tell(set, "cache_read_input_tokens", read)
  self:tell(set, "cache_creation_input_tokens", created)
  self:tell(set, "reasoning_output_tokens", seen.reasoning_tokens or seen.thoughtsTokenCount)
end

-- The parts of input and output that may have prices of their own.
function Report:tell_parts(set)
  local seen = self.reported
  local pictures = seen.output_image_tokens
  if self.images > 0 and not pictures and not seen.output_text_tokens then
    pictures = seen.output_tokens -- an answer of pictures that does not say what its output was
  end
  self:tell_count(set, "cache_creation_1h_input_tokens", seen.ephemeral_1h_input_tokens or 0)
  self:tell_count(set, "cache_read_audio_input_tokens", seen.cached_audio_tokens or 0)
  self:tell_count(set, "audio_input_tokens", seen.input_audio_tokens or 0)
  self:tell_count(set, "audio_output_tokens", seen.output_audio_tokens or 0)
  self:tell_count(set, "image_input_tokens", seen.input_image_tokens or 0)
  self:tell_count(set, "image_output_tokens", pictures or 0)
end

function Report:tell_units(set)
  local seen = self.reported
  local seconds = seen.seconds or self.duration
  local searched = seen.web_search_requests
  if type(seconds) == "number" then
    seconds = ceil(seconds * 1000)
  end
  self:tell_count(set, "images", self.images)
  self:tell_count(set, "milliseconds", seconds or 0)
  self:tell_count(set, "queries", seen.search_units or 0)
  self:tell_count(set, "searches", type(searched) == "string" and searched or sum(searched, self.searches))
end

-- The turns of a session have a cost each, and texts do not add up: of those, it is told how many they are.
function Report:tell_upstream_cost(set)
  if self.session then
    self:tell(set, "turns", self.turns)
  else
    self:tell(set, "upstream_cost", self.cost or self.reported.cost)
  end
end

-- ---------------------------------------------------------------------------------------------------------------------
-- The kinds of answers. Each takes the body piece by piece and gives back what goes on to the client.

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
  finish(self.scanner.report)
  return ""
end

-- Opaque: sounds, pictures and other bytes in which no usage can stand.
local Opaque = {}
Opaque.__index = Opaque

function Opaque.new(report)
  return setmetatable({ report = report, held = "" }, Opaque)
end

function Opaque:finish()
  finish(self.report)
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
    report:event_over()
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
  local dropped = self:event_ended()
  finish(self.report)
  return dropped and "" or self.held
end

-- ---------------------------------------------------------------------------------------------------------------------
-- WebSocket: the frames that the server sends after 101. A message of JSON is an event; it may come in several frames,
-- with control frames between them. No payload is kept.

local WebSocket = {}
WebSocket.__index = WebSocket

local CONTINUATION, TEXT_FRAME, CONTROL_FRAMES = 0, 1, 8
-- Beyond this a number has no exact bytes any more, and no such frame comes.
local FRAME_BYTES_MAX = 2 ^ 53

function WebSocket.new(report)
  report.session = true
  local socket = setmetatable({ scanner = Scanner.new(TURN, report), report = report, held = "" }, WebSocket)
  socket.head = "" -- what came of a frame's head
  socket.left = nil -- bytes of the payload that are still to come; nil inside a head
  socket.is_text = false -- whether the message is one
  return socket
end

function WebSocket:feed(text)
  local chunk, from = Chunk.new(text), 1
  while from <= #text do
    from = self.left and self:payload(chunk, from) or self:frame(text, from)
  end
  return text
end

-- Take in the head of a frame: two bytes, the length when it is a long one, and a mask, which no server sends.
function WebSocket:frame(text, from)
  local head = self.head
  local first, second = byte(head .. sub(text, from, from + 1), 1, 2)
  local size = 2
  if second then
    local short = second % 128
    size = size + (short == 127 and 8 or short == 126 and 2 or 0) + (second >= 128 and 4 or 0)
  end
  local stop = from + size - #head - 1
  self.head = head .. sub(text, from, stop)
  if #self.head < size or not second then
    return #text + 1
  end
  self:begin(first, second)
  self.head = ""
  if self.left == 0 then
    self:frame_ended()
  end
  return stop + 1
end

function WebSocket:begin(first, second)
  local opcode, reserved = first % 16, floor(first / 16) % 8
  local left = second % 128
  if left >= 126 then
    local digits = left == 126 and 2 or 8
    left = 0
    for at = 3, 2 + digits do
      left = left * 256 + byte(self.head, at)
    end
  end
  if reserved ~= 0 or second >= 128 or left > FRAME_BYTES_MAX then
    error("a frame of the WebSocket cannot be read")
  end
  self.control = opcode >= CONTROL_FRAMES
  if not self.control and opcode ~= CONTINUATION then
    self.is_text = opcode == TEXT_FRAME
  end
  self.last, self.left = first >= 128, left
end

function WebSocket:payload(chunk, from)
  local to = min(chunk.size, from + self.left - 1)
  if self.is_text and not self.control then
    self.scanner:feed(chunk, from, to)
  end
  self.left = self.left - (to - from + 1)
  if self.left == 0 then
    self:frame_ended()
  end
  return to + 1
end

function WebSocket:frame_ended()
  self.left = nil
  if self.control or not self.last then
    return
  end
  if self.is_text and self.scanner.started then
    self.report:event_over()
  end
  self.report:message_over()
  self.scanner:reset()
  self.report:next_event()
end

-- It ends by somebody closing it; whether a turn was under way then is known already.
function WebSocket:finish()
  return ""
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

-- A reader that counts the keys of a JSON object which some upstream may take for its model, or for a way to another.
-- What a client hides behind the part that the Check saw must not be paid at the price of the part that it saw.
local LEADS_TO_MODEL = {
  model = true,
  fallbacks = true,
  context_window_fallbacks = true,
  content_policy_fallbacks = true,
  default_fallbacks = true,
  router_settings_override = true,
  extra_body = true,
  prompt_id = true,
  deployment_id = true,
  model_list = true,
  models = true,
  user_config = true,
}
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
      return LEADS_TO_MODEL[lower(key)] and node or nil
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
-- LiteLLM's, which knows the cost of an answer that does not stream before it sends it.
local COST_HEADER = "x-litellm-response-cost"

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
  if not reader.feed then
    return
  end
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
      if report.session then
        note(handle, "finished", false) -- of the turns that come now nothing will be seen
      end
      return
    end
    last, passed = chunk, result
  end
  local rest = reader:finish()
  if rest ~= "" then
    -- Fails after trailers, when the last chunk is gone; clients ignore the half event that is lost then.
    pcall(last.setBytes, last, passed .. rest)
  end
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
  end
  if check["extauthz.r"] ~= nil then
    -- The meter reads no frame that is compressed, and client and server agree on that by this header.
    handle:headers():remove("sec-websocket-extensions")
  end
  if check["extauthz.truncated"] == true then
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

local OPAQUE_KINDS = { audio = true, image = true, video = true }

-- Give what reads this answer.
local function reader_of(handle, headers, report)
  if headers:get(":status") == "101" then
    return WebSocket.new(report)
  end
  local kind = lower(headers:get("content-type") or "")
  if find(kind, "^%s*text/event%-stream") then
    local usage = metadata(handle):get(USAGE_NAMESPACE)
    local edits = usage ~= nil and usage["injected"] == true
    if edits then
      headers:remove("content-length")
    end
    return EventStream.new(report, edits)
  elseif OPAQUE_KINDS[match(kind, "^%s*(%a+)/") or ""] or find(kind, "octet%-stream") then
    return Opaque.new(report)
  end
  return JsonBody.new(report)
end

function envoy_on_response(handle)
  local check = metadata(handle):get(CHECK_NAMESPACE)
  if check == nil or check["extauthz.r"] == nil and check["extauthz.result"] == nil then
    return
  end
  local headers = handle:headers()
  local report = Report.new()
  report.reads = check["extauthz.result"] ~= nil
  local cost = headers:get(COST_HEADER)
  if cost ~= nil and #cost <= VALUE_BYTES_MAX and (tonumber(cost) or 0) > 0 then
    report.cost, report.fresh = cost, true
  end
  local encoding = headers:get("content-encoding")
  if encoding ~= nil and encoding ~= "identity" or headers:get("sec-websocket-extensions") ~= nil then
    note(handle, "error", "the upstream compressed its answer")
    write(handle, report)
    return
  end
  meter(handle, reader_of(handle, headers, report), report)
end

-- For tests, which cut documents at every byte without Envoy; Envoy ignores what a script returns. Inside a block,
-- since Envoy Gateway writes a call behind a script to check it, and nothing may stand behind a bare return.
do
  return {
    Report = Report,
    JsonBody = JsonBody,
    EventStream = EventStream,
    WebSocket = WebSocket,
    ModelCount = ModelCount,
    with_member = with_member,
  }
end
