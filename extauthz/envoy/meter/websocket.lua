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
