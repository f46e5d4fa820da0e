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
