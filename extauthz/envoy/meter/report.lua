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
