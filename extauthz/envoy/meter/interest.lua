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
