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
