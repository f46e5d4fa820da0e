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
