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
