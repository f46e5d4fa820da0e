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
