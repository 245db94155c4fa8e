"""What each provider's failures mean: the rows of its published error tables, as it sends them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

import relay


def classify(preset: str, status: int, body: bytes) -> str:
    """The class of an answer of `preset`; "" stands for a provider without one."""
    rules = (*(relay.PRESETS[preset].errors if preset else ()), *relay.COMMON_ERRORS)
    return relay.classify_error(
        rules, status, relay.error_in(body, status), {}, now=1_800_000_000
    ).failure


def code(value: object, message: str = "", **more: Any) -> bytes:
    """OpenAI's envelope with a code."""
    return wire({"error": {"code": value, "message": message, **more}})


def kind(value: object, message: str = "", **more: Any) -> bytes:
    """OpenAI's envelope with a type."""
    return wire({"error": {"type": value, "message": message, **more}})


def claude(type: str, message: str = "", **more: Any) -> bytes:
    """Anthropic's envelope."""
    error = {"type": type, "message": message, **more}
    return wire({"type": "error", "error": error, "request_id": "req_011"})


def google(number: int, status: str, message: str = "", *details: Any) -> bytes:
    """Google's envelope, details and all."""
    error = {"code": number, "message": message, "status": status, "details": list(details)}
    return wire({"error": error})


def quota(*ids: str) -> dict[str, Any]:
    """Google's QuotaFailure."""
    violations = [{"quotaMetric": "generativelanguage.googleapis.com/x", "quotaId": i} for i in ids]
    return {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": violations}


def reason(word: str) -> dict[str, Any]:
    """Google's ErrorInfo."""
    return {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": word}


def minimax(number: int | str, text: str = "") -> bytes:
    """MiniMax's: no error object, and an HTTP status of 200."""
    return wire({"choices": None, "base_resp": {"status_code": int(number), "status_msg": text}})


def gateway(status: int, text: str) -> bytes:
    """Azure API Management's, in front of any API: learn.microsoft.com, "quota policy"."""
    return wire({"statusCode": status, "message": text})


REPLENISHED = "Quota will be replenished in 00:12:34."


def huawei(number: int | str, text: str = "") -> bytes:
    return wire({"error_code": f"ModelArts.{number}", "error_msg": text})


def says(message: str) -> bytes:
    """OpenAI's envelope, telling nothing but a text."""
    return wire({"error": {"message": message}})


def wire(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


Case = tuple[str, int, bytes, str]

# The formatter would give every value of these tables a line of its own.
# fmt: off

# docs.bigmodel.cn/cn/api/api-code
GLM: list[Case] = [
    ("bigmodel", 500, code("500", "Internal error"), "transient"),
    ("bigmodel", 401, code("1001", "Authentication parameter not received in Header"), "auth"),
    ("bigmodel", 429, code("1112", "Your account has been locked"), "auth"),
    ("bigmodel", 429, code("1113", "Insufficient balance or no resource package. Please recharge."),
     "balance_empty"),
    ("bigmodel", 400, code("1210", "Invalid API parameter"), "bad_request"),
    ("bigmodel", 400, code("1211", "Unknown Model, please check the model code."), "model_missing"),
    ("bigmodel", 400, code("1221", "API has been taken offline"), "model_missing"),
    ("bigmodel", 400, code("1234", "Network error"), "transient"),
    ("bigmodel", 400, code("1261", "Prompt exceeds max length"), "too_long"),
    ("bigmodel", 400, code("1300", "Policy"), "moderation"),
    ("bigmodel", 400, code("1301", "Sensitive content detected"), "moderation"),
    ("bigmodel", 429, code("1302", "High concurrency usage of this API"), "rate_limited"),
    ("bigmodel", 429, code("1303", "High frequency usage of this API"), "rate_limited"),
    ("bigmodel", 429, code("1304", "Daily call limit for this API reached"), "plan_exhausted"),
    ("bigmodel", 429, code("1305", "Rate limit reached for requests"), "rate_limited"),
    ("zai", 429, code("1308",
     "Usage limit reached for 5 hour. Your limit will reset at 2026-09-10 04:24:36"),
     "plan_exhausted"),
    ("zai", 429, code("1309", "Your GLM Coding Plan package has expired"), "plan_expired"),
    ("zai", 429, code("1310",
     "Weekly/Monthly Limit Exhausted. Your limit will reset at 2026-09-14"), "plan_exhausted"),
    ("zai", 429, code("1311", "Your plan does not include access to glm-5.3"), "plan_exhausted"),
    ("zai", 429, code("1312", "This model is experiencing high traffic"), "overloaded"),
    ("zai", 429, code("1313", "Fair usage restriction"), "client_rejected"),
    # the Anthropic endpoint puts the code into the text
    ("zai", 429, claude("rate_limit_error", "[1308][Usage limit reached for 5 hour][20260910abc]"),
     "plan_exhausted"),
    ("zai", 429, claude("rate_limit_error", "[1302][High concurrency][20260910]"), "rate_limited"),
    ("zai", 200, claude("overloaded_error", "[1312][Try another model][20260910]"), "overloaded"),
    ("bigmodel", 434, b"", "auth"),
    ("bigmodel", 435, b"", "bad_request"),
]

# api-docs.deepseek.com/quick_start/error_codes
DEEPSEEK: list[Case] = [
    ("deepseek", 400, kind("invalid_request_error",
     "The reasoning_content in the thinking mode must be passed back to the API."),
     "reasoning_refused"),
    ("deepseek", 400, kind("invalid_request_error", "Model Not Exist"), "model_missing"),
    ("deepseek", 400, kind("invalid_request_error", "Content Exists Risk"), "moderation"),
    ("deepseek", 400, kind("invalid_request_error",
     "This model's maximum context length is 1048576 tokens. However, you requested 1050000"),
     "too_long"),
    ("deepseek", 401, kind("authentication_error", "Authentication Fails"), "auth"),
    ("deepseek", 402, kind("unknown_error", "Insufficient Balance"), "balance_empty"),
    ("deepseek", 422, kind("invalid_request_error", "Failed to deserialize"), "bad_request"),
    ("deepseek", 429, says("Rate Limit Reached"), "rate_limited"),
    ("deepseek", 500, b"", "transient"),
    ("deepseek", 503, says("Service is too busy"), "overloaded"),
]

# kimi.com/code/docs error-reference; platform.kimi.ai; kimi.com/help
KIMI: list[Case] = [
    ("kimi-coding", 401, kind("invalid_authentication_error", "The API Key expired"), "auth"),
    ("kimi-coding", 402, says("We're unable to verify your membership benefits at this time."),
     "plan_expired"),
    ("kimi-coding", 403, kind("access_terminated_error",
     "You've reached your usage limit for this billing cycle."), "plan_exhausted"),
    ("kimi-coding", 403, kind("access_terminated_error",
     "Kimi For Coding is currently only available for Coding Agents such as Kimi CLI"),
     "client_rejected"),
    ("kimi-coding", 403, says("Access terminated"), "client_rejected"),
    ("kimi-coding", 429, says("You've reached your usage limit for this period."),
     "plan_exhausted"),
    ("kimi-coding", 429, says("You've reached kimi monthly usage limit"), "plan_exhausted"),
    ("kimi-coding", 429, claude("rate_limit_error",
     "You've reached your usage limit for this period."), "plan_exhausted"),
    ("kimi-coding", 429, kind("rate_limit_error",
     "We're receiving too many requests at the moment."), "rate_limited"),
    ("kimi-coding", 429, kind("engine_overloaded_error", "The engine is currently overloaded"),
     "overloaded"),
    ("kimi-coding", 429, says("The engine is currently overloaded, try later"), "overloaded"),
    ("kimi-coding", 400, says("total message size 3000000 exceeds limit 2097152"), "too_long"),
    ("kimi-coding", 400, says("Your request exceeded model token limit: 262144"), "too_long"),
    ("kimi-coding", 400, says("the token limit is 262144"), "too_long"),
    ("kimi-coding", 400, says("unsupported image url"), "bad_request"),
    ("kimi-coding", 400, says("function name Read is duplicated"), "bad_request"),
    ("kimi-coding", 400, says("The request was rejected because it was considered high risk"),
     "moderation"),
    ("moonshot", 429, kind("rate_limit_reached_error", "max RPM: 3"), "rate_limited"),
    ("moonshot", 429, kind("engine_overloaded_error", "overloaded"), "overloaded"),
    ("moonshot", 429, kind("exceeded_current_quota_error", "Your account org-1 is suspended"),
     "balance_empty"),
    ("moonshot-ai", 403, says("Your account has no balance"), "balance_empty"),
    ("moonshot", 404, kind("resource_not_found_error",
     "Not found the model kimi-k9 or Permission denied"), "model_missing"),
    ("moonshot", 400, says("invalid temperature: only 1 is allowed for this model"), "bad_request"),
]

# help.aliyun.com/model-studio: error codes, coding-plan-faq
DASHSCOPE: list[Case] = [
    ("dashscope", 429, says("hour allocated quota exceeded"), "plan_exhausted"),
    ("dashscope", 429, says("week allocated quota exceeded"), "plan_exhausted"),
    ("dashscope-intl", 429, says("month allocated quota exceeded"), "plan_exhausted"),
    ("dashscope", 429, says("Calls are blocked and no pay-as-you-go charges apply"),
     "plan_exhausted"),
    ("dashscope", 401, says("invalid access token or token expired"), "auth"),
    ("dashscope", 403, says("invalid api-key"), "auth"),
    ("dashscope", 404, b"", "transient"),
    ("dashscope", 400, says("model 'qwen9' is not supported"), "model_missing"),
    ("dashscope", 400, code("invalid_parameter_error", "<400> InternalError.Algo.InvalidParameter: "
     "Range of input length should be [1, 983616]"), "too_long"),
    # native form
    ("dashscope", 400, wire({"code": "InvalidParameter",
     "message": "Range of input length should be [1, 983616]", "request_id": "5bf78562"}),
     "too_long"),
    ("dashscope", 429, wire({"code": "Throttling.RateQuota",
     "message": "Requests rate limit exceeded"}), "rate_limited"),
    ("dashscope", 429, code("Throttling.BurstRate", "Request rate increased"), "rate_limited"),
    ("dashscope", 429, code("Throttling.AllocationQuota",
     "Allocated quota exceeded, please increase your quota limit."), "rate_limited"),
    ("dashscope", 429, code("insufficient_quota",
     "You exceeded your current quota, please check your plan and billing details.",
     type="insufficient_quota"), "rate_limited"),
    ("dashscope", 429, says("Allocated quota exceeded, please increase it"), "rate_limited"),
    ("dashscope", 200, says("You exceeded your current quota"), "rate_limited"),
    ("dashscope", 403, code("AllocationQuota.FreeTierOnly",
     "The free tier of the model has been exhausted."), "balance_empty"),
    ("dashscope", 429, says("Free allocated quota exceeded."), "balance_empty"),
    ("dashscope", 400, code("Arrearage", "Access denied, account overdue"), "balance_empty"),
    ("dashscope", 400, code("DataInspectionFailed", "Inappropriate content"), "moderation"),
    ("dashscope", 400, code("data_inspection_failed", "Inappropriate"), "moderation"),
]

# developers.openai.com error codes
OPENAI: list[Case] = [
    *(("openai", 429, code(word, "Limit", type="insufficient_quota"), "plan_exhausted")
     for word in ("organization_spend_limit_exceeded", "project_spend_limit_exceeded",
     "organization_usage_limit_exceeded")),
    *(("openai", 429, code(word, "Quota", type="insufficient_quota"), "balance_empty")
     for word in ("credit_balance_exhausted", "insufficient_quota")),
    ("openai", 429, code("rate_limit_exceeded",
     "Rate limit reached for gpt-6-sol on tokens per min (TPM): Limit 30000, Used 29000, "
     "Requested 2000. Please try again in 2s.", type="tokens"), "rate_limited"),
    ("openai", 429, code("rate_limit_exceeded",
     "Rate limit reached for gpt-6-sol on requests per day (RPD): Limit 200, Used 200",
     type="requests"), "rate_limited"),
    ("openai", 429, code("rate_limit_exceeded",
     "Request too large for gpt-6-sol on tokens per min (TPM): Limit 30000", type="tokens"),
     "too_long"),
    ("openai", 429, code("slow_down", "Please slow down"), "rate_limited"),
    ("openai", 503, code("server_is_overloaded", "Overloaded"), "overloaded"),
    # inside a 200, behind response.created
    ("openai", 200, wire({"type": "error", "error": {"type": "service_unavailable_error",
     "code": "server_is_overloaded",
     "message": "Our servers are currently overloaded. Please try again later."}}), "overloaded"),
    ("openai", 200, code("server_error", "The server had an error"), "transient"),
    ("openai", 400, code("context_length_exceeded",
     "Your input exceeds the context window of this model."), "too_long"),
    ("openai", 400, code("content_policy_violation", "Your request was rejected"), "moderation"),
    ("openai", 400, code("unsupported_parameter", "'max_tokens' is not supported with this model."),
     "bad_request"),
    ("openai", 401, code("invalid_api_key", "Incorrect API key provided: sk-x"), "auth"),
    ("openai", 404, code("model_not_found", "The model `x` does not exist"), "model_missing"),
    ("openai", 403, code(None, "Project `p` does not have access to model `gpt-6-sol`"),
     "model_missing"),
    ("openai", 500, b"<html>upstream error</html>", "transient"),
    ("openai", 502, b"", "transient"),
]

# platform.claude.com errors
ANTHROPIC: list[Case] = [
    ("anthropic", 400, claude("invalid_request_error", "max_tokens: required"), "bad_request"),
    ("anthropic", 400, claude("invalid_request_error",
     "prompt is too long: 210000 tokens > 200000 maximum"), "too_long"),
    ("anthropic", 400, claude("invalid_request_error",
     "input length and `max_tokens` exceed context limit: 190000 + 32000 > 200000"), "too_long"),
    ("anthropic", 400, claude("invalid_request_error",
     "You have reached your specified API usage limits. "
     "You will regain access on 2026-12-01 at 00:00 UTC."), "plan_exhausted"),
    ("anthropic", 400, claude("invalid_request_error",
     "Your credit balance is too low to access the Anthropic API."), "balance_empty"),
    ("anthropic", 401, claude("authentication_error", "invalid x-api-key"), "auth"),
    ("anthropic", 402, claude("billing_error", "There is an issue with billing"), "balance_empty"),
    ("anthropic", 403, claude("permission_error", "Not allowed"), "auth"),
    ("anthropic", 404, claude("not_found_error", "model: claude-9"), "model_missing"),
    ("anthropic", 409, claude("conflict_error", "Conflict"), "transient"),
    ("anthropic", 413, claude("request_too_large", "Request exceeds the maximum size"), "too_long"),
    ("anthropic", 429, claude("rate_limit_error",
     "This request would exceed your organization's rate limit of 40,000 input tokens "
     "per minute"), "rate_limited"),
    ("anthropic", 429, claude("rate_limit_error", "You have reached a limit",
     details={"error_code": "enforced_spend_limit_reached"}), "plan_exhausted"),
    ("anthropic", 429, claude("rate_limit_error",
     "Extra usage is required for long context requests."), "too_long"),
    ("anthropic", 429, claude("rate_limit_error",
     "Usage credits are required for long context requests."), "too_long"),
    ("anthropic", 500, claude("api_error", "Internal server error"), "transient"),
    ("anthropic", 504, claude("timeout_error", "Timed out"), "transient"),
    ("anthropic", 529, claude("overloaded_error", "Overloaded"), "overloaded"),
    ("anthropic", 200, claude("overloaded_error", "Overloaded"), "overloaded"),
    ("anthropic", 200, claude("api_error", "Internal server error"), "transient"),
    ("anthropic", 200, claude("invalid_request_error", "No"), "bad_request"),
]

# ai.google.dev errors; google-gemini/gemini-cli googleQuotaErrors.ts
CURRENT_QUOTA = "You exceeded your current quota, please check your plan and billing details."
PER_DAY = "GenerateRequestsPerDayPerProjectPerModel-FreeTier"
PER_MINUTE = "GenerateRequestsPerMinutePerProjectPerModel-FreeTier"
GEMINI: list[Case] = [
    ("gemini", 429, google(429, "RESOURCE_EXHAUSTED", CURRENT_QUOTA, quota(PER_DAY)),
     "plan_exhausted"),
    ("gemini", 429, google(429, "RESOURCE_EXHAUSTED", CURRENT_QUOTA, quota(PER_MINUTE, PER_DAY)),
     "plan_exhausted"),
    ("gemini", 429, google(429, "RESOURCE_EXHAUSTED", CURRENT_QUOTA, quota(PER_MINUTE)),
     "rate_limited"),
    ("gemini", 429, google(429, "RESOURCE_EXHAUSTED", CURRENT_QUOTA), "rate_limited"),
    # the compatible endpoint answers with a list
    ("gemini", 429, b"[" + google(429, "RESOURCE_EXHAUSTED", CURRENT_QUOTA, quota(PER_DAY)) + b"]",
     "plan_exhausted"),
    ("gemini", 429, google(429, "RESOURCE_EXHAUSTED",
     "* Quota exceeded for metric: x/free_tier_requests, limit: 0, model: gemini-4-argon"),
     "plan_exhausted"),
    ("gemini", 429, google(429, "RESOURCE_EXHAUSTED", "Quota", reason("QUOTA_EXHAUSTED")),
     "plan_exhausted"),
    ("gemini", 429, google(429, "RESOURCE_EXHAUSTED", "x",
     reason("INSUFFICIENT_G1_CREDITS_BALANCE")), "plan_exhausted"),
    ("gemini", 429, google(429, "RESOURCE_EXHAUSTED", "Rate", reason("RATE_LIMIT_EXCEEDED")),
     "rate_limited"),
    ("gemini", 429, google(429, "RESOURCE_EXHAUSTED", "x", reason("MODEL_CAPACITY_EXHAUSTED")),
     "overloaded"),
    ("gemini", 429, google(429, "RESOURCE_EXHAUSTED",
     "You have exhausted your capacity on this model."), "overloaded"),
    ("gemini", 200, google(429, "RESOURCE_EXHAUSTED", CURRENT_QUOTA, quota(PER_DAY)),
     "plan_exhausted"),
    ("gemini", 503, google(503, "UNAVAILABLE", "The model is overloaded."), "overloaded"),
    ("gemini", 400, google(400, "FAILED_PRECONDITION",
     "User location is not supported for the API use."), "auth"),
    ("gemini", 400, google(400, "INVALID_ARGUMENT",
     "API key not valid. Please pass a valid API key.", reason("API_KEY_INVALID")), "auth"),
    ("gemini", 403, google(403, "PERMISSION_DENIED", "Verify your account",
     reason("VALIDATION_REQUIRED")), "auth"),
    ("gemini", 400, google(400, "INVALID_ARGUMENT",
     "The input token count (1200000) exceeds the maximum number of tokens allowed"), "too_long"),
    ("gemini", 400, google(400, "INVALID_ARGUMENT", "Function call is missing a thought_signature"),
     "reasoning_refused"),
    ("gemini", 404, google(404, "NOT_FOUND", "models/gemini-9 is not found for API version v1beta"),
     "model_missing"),
    ("gemini", 500, google(500, "INTERNAL", "An internal error has occurred."), "transient"),
    ("gemini", 504, google(504, "DEADLINE_EXCEEDED", "Deadline"), "transient"),
    ("vertex", 429, google(429, "RESOURCE_EXHAUSTED", "Resource exhausted."), "rate_limited"),
]

# learn.microsoft.com
AZURE: list[Case] = [
    ("azure", 400, code("content_filter", "The response was filtered"), "moderation"),
    ("azure", 404, code("DeploymentNotFound", "The deployment does not exist."), "model_missing"),
    ("azure", 429, code("429", "Requests have exceeded token rate limit"), "rate_limited"),
    ("azure", 401, code("401", "Access denied due to invalid subscription key"), "auth"),
    ("", 401, gateway(401, "Access denied due to missing subscription key."), "auth"),
    ("", 403, gateway(403, f"Out of call volume quota. {REPLENISHED}"), "plan_exhausted"),
    ("azure", 403, gateway(403, f"Out of bandwidth quota. {REPLENISHED}"), "plan_exhausted"),
    ("", 429, gateway(429, "Rate limit is exceeded. Try again in 12 seconds."), "rate_limited"),
]

# openrouter.ai/docs errors, limits
OPENROUTER: list[Case] = [
    ("openrouter", 400, code(400, "Bad"), "bad_request"),
    ("openrouter", 400, code(400, "x/y is not a valid model ID"), "model_missing"),
    ("openrouter", 401, code(401, "No auth credentials found"), "auth"),
    *(("openrouter", 402, code(402, "More credits", metadata={"limit_source": source,
     "provider_name": None}), failure) for source, failure in (("openrouter_credits",
     "balance_empty"), ("openrouter_key_limit", "balance_empty"), ("openrouter_in_flight_budget",
     "rate_limited"))),
    ("openrouter", 402, code(402, "Provider returned error",
     metadata={"raw": '{"error":{"message":"Insufficient credits"}}', "provider_name": "X"}),
     "overloaded"),
    ("openrouter", 403, code(403, "Input was flagged", metadata={"reasons": ["violence"]}),
     "moderation"),
    ("openrouter", 403, code(403, "Key limit exceeded (total limit)"), "balance_empty"),
    ("openrouter", 404, code(404, "No endpoints found for x/y."), "model_missing"),
    ("openrouter", 404, code(404, "No endpoints found that support tool use"), "bad_request"),
    ("openrouter", 408, code(408, "Timed out"), "transient"),
    ("openrouter", 429, code(429, "Rate limit exceeded: free-models-per-min"), "rate_limited"),
    ("openrouter", 429, code(429, "Rate limit exceeded: free-models-per-day. Add 10 credits to "
     "unlock 1000 free model requests per day"), "plan_exhausted"),
    ("openrouter", 429, code(429, "Provider returned error",
     metadata={"raw": "x/y is temporarily rate-limited upstream", "provider_name": "X"}),
     "overloaded"),
    ("openrouter", 502, code(502, "Provider returned error"), "transient"),
    ("openrouter", 503, code(503, "No provider meets your requirements"), "overloaded"),
    ("openrouter", 200, code(429, "Rate limited"), "rate_limited"),
    ("openrouter", 200, code(402, "More credits"), "balance_empty"),
    ("openrouter", 200, code(502, "Provider returned error"), "transient"),
]

# platform.minimax.io errorcode
MINIMAX: list[Case] = [
    ("minimax", 200, minimax(1000, "unknown error"), "transient"),
    ("minimax", 200, minimax(1001, "request timeout"), "transient"),
    ("minimax", 200, minimax(1002, "rate limit"), "rate_limited"),
    ("minimax", 200, minimax(1004, "not authorized"), "auth"),
    ("minimax", 200, minimax(1008, "insufficient balance"), "balance_empty"),
    ("minimax", 200, minimax(1024, "internal error"), "transient"),
    ("minimax", 200, minimax(1026, "sensitive content"), "moderation"),
    ("minimax", 200, minimax(1027, "output sensitive"), "moderation"),
    ("minimax", 200, minimax(1033, "system error"), "transient"),
    ("minimax", 200, minimax(1039, "token limit"), "rate_limited"),
    ("minimax", 200, minimax(2013, "invalid params"), "bad_request"),
    ("minimax", 200, minimax(2013, "invalid params, context window exceeds limit"), "too_long"),
    ("minimax-cn", 200, minimax(2056, "usage limit exceeded"), "plan_exhausted"),
    ("minimax", 429,
     says("usage limit exceeded, 5-hour usage limit reached for Token Plan Plus (100/100 used), "
     "resets at 2026-06-06T05:00:00+08:00 (2056)"), "plan_exhausted"),
    ("minimax", 429, says("usage limit exceeded (2056)"), "plan_exhausted"),
    # its OpenAI and Anthropic endpoints: the number is behind the text
    ("minimax", 422, kind("unprocessable_entity_error", "input new_sensitive (1026)"),
     "moderation"),
    ("minimax", 200, claude("api_error", "login fail (1004)"), "auth"),
    ("minimax", 500, claude("api_error", "not enough money (1008)"), "balance_empty"),
]

# volcengine.com/docs/82379/1299023
ARK: list[Case] = [
    *(("ark", status, code("AccountQuotaExceeded", f"You have exceeded the {window} usage quota. "
     "It will reset at 2026-08-03 23:59:59 +0800 CST.", type="TooManyRequests"), "plan_exhausted")
     for status, window in ((429, "5-hour"), (429, "weekly"), (429, "monthly"), (200, "5-hour"))),
    ("ark", 403, code("AccountOverdueError", "overdue balance", type="Forbidden"), "balance_empty"),
    ("ark", 401, code("AuthenticationError", "invalid", type="Unauthorized"), "auth"),
    ("ark", 404, code("InvalidEndpointOrModel.NotFound", "The model or endpoint"), "model_missing"),
    ("ark", 404, code("ModelNotOpen", "has not activated the model x"), "model_missing"),
    ("ark", 429, code("RateLimitExceeded.EndpointRPMExceeded", "RPM"), "rate_limited"),
    ("ark", 429, code("ServerOverloaded", "Try later", type="TooManyRequests"), "overloaded"),
    ("ark", 400, code("InvalidParameter", "not valid", type="BadRequest"), "bad_request"),
    ("ark", 400, code("InvalidParameter.X", "exceed max message tokens"), "too_long"),
    ("ark", 400, code("InputTextRiskDetection", "sensitive", type="BadRequest"), "moderation"),
    ("ark", 400, code("OutputImageRiskDetection", "x", type="BadRequest"), "moderation"),
    ("ark", 400, code("InputTextSensitiveContentDetected", "x", type="BadRequest"), "moderation"),
    ("ark", 400, code("OutputTextSensitiveContentDetected.PolicyViolation", "x"), "moderation"),
    ("ark", 429, code("SetLimitExceeded", "The model service has been paused"), "balance_empty"),
    ("byteplus", 429, code("AccountQuotaExceeded", "weekly"), "plan_exhausted"),
]

# platform.stepfun.com, docs.siliconflow.com, platform.xiaomimimo.com
OTHERS: list[Case] = [
    ("stepfun", 400, kind("request_params_invalid", "Bad"), "bad_request"),
    ("stepfun", 401, kind("invalid_api_key", "Incorrect API key provided"), "auth"),
    ("stepfun", 402, kind("quota_exceeded", CURRENT_QUOTA), "balance_empty"),
    ("stepfun", 404, says("path"), "transient"),
    ("stepfun", 429, says("Too many requests"), "rate_limited"),
    ("stepfun", 429, says("You have used up the 5-hour quota of your plan"), "plan_exhausted"),
    ("stepfun", 429, says("Weekly limit reached"), "plan_exhausted"),
    ("siliconflow", 400, wire({"code": 20012, "message": "Model does not exist. Please check it",
     "data": None}), "model_missing"),
    ("siliconflow", 403, wire({"code": 30001,
     "message": "Sorry, your account balance is insufficient"}), "balance_empty"),
    ("siliconflow", 403, wire({"code": 30003, "message": "real-name verification"}), "auth"),
    ("siliconflow", 401, b'"Invalid token"', "auth"),
    ("siliconflow", 429,
     wire({"message": "Request was rejected due to rate limiting. Details: TPD limit reached."}),
     "rate_limited"),
    ("siliconflow", 503, wire({"code": 50505, "message": "busy"}), "overloaded"),
    ("siliconflow", 504, b"", "overloaded"),
    ("mimo", 402, code("402", "Insufficient account balance", type="insufficient_balance"),
     "balance_empty"),
    ("mimo", 401, code("401", "Invalid API Key", type="invalid_key"), "auth"),
    ("mimo", 403, code("403", "Region", type="forbidden"), "auth"),
    ("mimo", 429, code("429", "Too many requests", type="limitation"), "rate_limited"),
]

# console.groq.com/docs/errors, docs.mistral.ai error glossary, docs.x.ai
FAST: list[Case] = [
    ("groq", 413, code("rate_limit_exceeded", "Request too large for model `x`"), "too_long"),
    ("groq", 413, b"", "too_long"),
    ("groq", 200, wire({"error": {"message": "Failed to parse tool call arguments as JSON",
     "code": "tool_use_failed", "failed_generation": "{"}}), "transient"),
    ("cerebras", 400, b"", "too_long"),
    ("cerebras", 413, b"", "too_long"),
    ("cerebras", 400, says("temperature: too high"), "bad_request"),
    ("gemini", 403, google(403, "PERMISSION_DENIED", "No longer supported.",
     reason("UNSUPPORTED_CLIENT")), "auth"),
    ("gemini", 400, google(400, "FAILED", "No longer supported.",
     reason("UNSUPPORTED_CLIENT")), "auth"),
    ("groq", 422, says("Unprocessable"), "bad_request"),
    ("groq", 400, code("tool_use_failed", "Failed to call a function. See 'failed_generation'"),
     "transient"),
    ("groq", 424, says("Failed dependency"), "transient"),
    ("groq", 429, code("rate_limit_exceeded",
     "Rate limit reached for model `x` on tokens per day (TPD): Limit 100000, Used 99300. "
     "Please try again in 11m31.2s.", type="tokens"), "rate_limited"),
    ("groq", 498, code("capacity_exceeded", "Flex tier capacity exceeded"), "overloaded"),
    ("groq", 499, says("Request cancelled"), "transient"),
    ("groq", 502, b"", "transient"),
    ("groq", 503, says("Service unavailable"), "overloaded"),
    ("mistral", 402, wire({"object": "error", "message": "Payment required"}), "balance_empty"),
    ("mistral", 422, wire({"detail": [{"type": "extra_forbidden", "loc": ["body", "store"],
     "msg": "Extra"}]}), "bad_request"),
    ("mistral", 429, wire({"object": "error", "message": "Rate limit exceeded",
     "type": "rate_limited", "param": None, "code": "1300"}), "rate_limited"),
    ("mistral", 429, wire({"object": "error",
     "message": "Service tier capacity exceeded for this model."}), "overloaded"),
    ("mistral", 400, wire({"object": "error", "message": "Invalid model: x",
     "type": "invalid_model"}), "model_missing"),
    *(("xai", status, wire({"code": "The caller does not have permission",
     "error": "Your team 1 has either used all available credits or reached its "
     "monthly spending limit."}), "balance_empty") for status in (403, 429)),
    ("xai", 403, wire({"code": "personal-team-blocked:spending-limit", "error": "Blocked"}),
     "balance_empty"),
    ("xai", 429, wire({"code": "x", "error": "Too many requests"}), "rate_limited"),
    ("xai", 403, wire({"code": "The caller does not have permission to execute the specified "
     "operation", "error": "Content violates usage guidelines. Team: x, API key ID: y, Model: "
     "grok-4.5, Failed check: SAFETY_CHECK_TYPE_BIO"}), "moderation"),
    ("xai", 422, wire({"code": "x", "error": "unknown variant"}), "bad_request"),
]

# support.huaweicloud.com tokenplan-maas-0013
HUAWEI: list[Case] = [
    ("huawei", 403, huawei(81019, "You have no valid token plan subscription"), "plan_expired"),
    ("huawei", 403, huawei(81021, "Your Token plan subscription is frozen."), "balance_empty"),
    ("huawei", 403, huawei(81022,
     "Your Token plan quota has been exhausted. You can upgrade or wait"), "plan_exhausted"),
    ("huawei", 403, huawei(81023, "The account is blocked for token plan."), "client_rejected"),
    ("huawei", 429, huawei(81101,
     "Too many requests, the limit of requests per minute has been reached"), "rate_limited"),
]

# Servers of one's own
LOCAL: list[Case] = [
    ("vllm", 429, b"", "overloaded"),
    ("ollama", 503, b"", "overloaded"),
    ("vllm", 400,
     says("This model's maximum context length is 4096 tokens. However, you requested 5000"),
     "too_long"),
    ("vllm", 404, says("The model `x` does not exist."), "model_missing"),
    ("sglang", 400,
     says("The input (5000 tokens) is longer than the model's context length (4096 tokens)."),
     "too_long"),
    ("llamacpp", 400, wire({"error": {"code": 400, "type": "exceed_context_size_error",
     "message": "request (9000 tokens) exceeds the available context size", "n_prompt_tokens": 9000,
     "n_ctx": 8192}}), "too_long"),
    ("llamacpp", 503, code(503, "Loading model", type="unavailable_error"), "overloaded"),
    ("ollama", 404, wire({"error": "model 'x' not found, try pulling it first"}), "model_missing"),
    ("tgi", 429, wire({"error": "Model is overloaded", "error_type": "overloaded"}), "overloaded"),
    ("tgi", 422, wire({"error": "Input validation error: `inputs` must have less than 1024 tokens",
     "error_type": "validation"}), "too_long"),
    ("lmstudio", 400, wire({"error": "context length of only 4096 tokens"}), "too_long"),
    ("fastchat", 400, wire({"object": "error", "message": "x", "code": 40303}), "too_long"),
    ("fastchat", 400, wire({"object": "error", "message": "x", "code": 50002}), "transient"),
]

# No preset at all: the common rules stand alone
PLAIN: list[Case] = [
    ("", 400, b"", "bad_request"),
    ("", 401, b"", "auth"),
    ("", 402, b"", "balance_empty"),
    ("", 403, b"<html>Forbidden</html>", "auth"),
    ("", 404, b"<html>Not Found</html>", "transient"),
    ("", 405, b"", "transient"),
    ("", 408, b"", "transient"),
    ("", 413, b"", "too_long"),
    ("", 418, b"", "bad_request"),
    ("", 412, code("PRECONDITION_FAILED", "Account x is suspended, possibly due to reaching the "
     "monthly spending limit or failure to pay past invoices."), "balance_empty"),  # Fireworks
    ("", 403, wire({"code": 403, "reason": "NOT_ENOUGH_BALANCE", "message": "not enough balance"}),
     "balance_empty"),                                                               # Novita
    ("", 429, wire({"errors": {"message": "You have exceeded today's quota for model x, please try "
     "again tomorrow"}}), "plan_exhausted"),                                         # ModelScope
    ("", 429, says("Daily limit reached"), "plan_exhausted"),
    ("", 429, says("Too many requests per day"), "rate_limited"),
    ("", 403, says("该令牌额度已用尽"), "balance_empty"),                            # new-api
    ("", 429, says("您的月度额度已用完"), "plan_exhausted"),
    ("", 400, wire({"code": 400, "message": "The provided model identifier is invalid."}),
     "model_missing"),                                                               # Bedrock
    ("", 403, says("Your account was disabled for violating our usage policies"), "auth"),
    ("dashscope", 403, wire({"code": "Model.AccessDenied", "message": "Model access denied."}),
     "model_missing"),
    ("bigmodel", 200, claude("api_error", "[1302][Too many at once][2026]"), "rate_limited"),
    ("", 422, b"", "bad_request"),
    ("", 429, b"", "rate_limited"),
    ("", 498, b"", "overloaded"),
    ("", 500, b"", "transient"),
    ("", 502, b"", "transient"),
    ("", 503, b"", "overloaded"),
    ("", 504, b"", "transient"),
    ("", 524, b"", "transient"),
    ("", 529, b"", "overloaded"),
    ("", 429, says("Weekly usage limit reached"), "plan_exhausted"),
    ("", 429, says("Quota exceeded for this month"), "plan_exhausted"),
    ("", 429, says("You have exceeded the monthly usage quota."), "plan_exhausted"),
    ("", 429, says("已达到 5 小时的使用上限"), "plan_exhausted"),
    ("", 429, says("Limit of 100 requests per hour exceeded"), "rate_limited"),
    ("", 429, says("Rate limit exceeded for this period"), "rate_limited"),
    ("", 429, says("Rate limit reached. Please try again in 1 hour."), "rate_limited"),
    ("", 400, says("max_tokens: 200000 > 64000, the maximum allowed"), "bad_request"),
    ("", 400, says("string too long. Expected a string with maximum length 64"), "bad_request"),
    ("", 400, says("Unsupported value: 'temperature' with this model."), "bad_request"),
    ("", 404, says("Cannot POST /v1/v1beta/models/x:generateContent"), "transient"),
    ("", 403, wire({"error": "Client not allowed", "userAgent": "curl"}), "client_rejected"),
    ("", 200, says("something broke"), "transient"),
    ("", 200, b'{"error": "boom"}', "transient"),
    # too long, in the words of servers without a preset; at a rate the same words are none
    ("", 400, says("Context length exceeded"), "too_long"),
    ("", 400, says("The input exceeds the maximum allowed input length"), "too_long"),
    ("", 400, says("prompt token count of 135000 exceeds the limit of 128000"), "too_long"),
    ("", 400, says("Prompt exceeds max length"), "too_long"),
    ("", 400, says("The number of tokens in the prompt exceeds the model's context window"),
     "too_long"),
    ("", 400, says("上下文长度超过限制"), "too_long"),
    ("", 400, code("1261", "Prompt 超长"), "too_long"),
    ("", 400, kind("exceeded_context_length", "x"), "too_long"),
    ("", 400, says("max_tokens exceeds the limit of 8192"), "bad_request"),
    ("", 400, says("messages.1.content.0.thinking: signature verification failed"),
     "reasoning_refused"),
    ("", 200, code("1261", "Prompt exceeds max length"), "too_long"),
    ("", 400, wire({"error": {"code": 400, "type": "exceed_context_size_error", "n_ctx": 4096,
     "message": "the request exceeds the available context size, try increasing it"}}), "too_long"),
    ("", 500, says("Too many tokens: the conversation is too long"), "too_long"),
    ("", 429, says("Too many tokens, please wait before trying again."), "rate_limited"),
    ("", 400, says("Number of prompt tokens per minute exceeds the limit"), "bad_request"),
    ("", 400, says("The image exceeds the limit of 5 MB"), "bad_request"),
    # reasoning of another account, model or maker
    ("", 400, code("invalid_encrypted_content", "No."), "reasoning_refused"),
    ("", 200, code("invalid_encrypted_content", "No."), "reasoning_refused"),
    ("", 200, says("The encrypted content gAAA could not be verified. Reason: Encrypted content"
     " could not be decrypted or parsed."), "reasoning_refused"),
    ("", 400, says("messages.1.content.0: Invalid `signature` in `thinking` block"),
     "reasoning_refused"),
    ("", 400, says("Expected `thinking` or `redacted_thinking`, but found `tool_use`"),
     "reasoning_refused"),
    ("", 400, google(400, "INVALID_ARGUMENT", "Corrupted thought signature."), "reasoning_refused"),
    ("", 422, wire({"detail": [{"loc": ["body", "messages", 2, "assistant", "reasoning_content"],
     "msg": "Extra inputs are not permitted"}]}), "reasoning_refused"),
    ("", 404, says("Item with id 'rs_68' not found. Items are not persisted when `store` is false"),
     "reasoning_refused"),
    ("", 400, says("Your organization must be verified to generate reasoning summaries."),
     "reasoning_refused"),
    ("bigmodel", 400, code("1210", "Invalid signature in thinking block"), "reasoning_refused"),
    ("", 400, says("reasoning_effort: unknown value"), "bad_request"),
    ("", 400, says("The signature of the function `f` has no parameters"), "bad_request"),
    # claude-relay-service, a relay behind this one
    ("", 403, kind("client_validation_error",
     "This endpoint only accepts requests from Claude Code CLI"), "client_rejected"),
]

# Codes and types as they come without any text: preset, status, envelope, class, words
WORDS: list[tuple[str, int, Callable[[str], bytes], str, str]] = [
    ("bigmodel", 401, code, "auth", "1000 1001 1002 1003 1004 1110 1111 1112 1120 1121 1220"),
    ("bigmodel", 429, code, "balance_empty", "1113"),
    ("bigmodel", 429, code, "plan_exhausted", "1304 1308 1310 1311"),
    ("bigmodel", 429, code, "plan_expired", "1309"),
    ("bigmodel", 200, code, "rate_limited", "1302 1303 1305"),
    ("bigmodel", 429, code, "overloaded", "1312"),
    ("bigmodel", 429, code, "client_rejected", "1313"),
    ("bigmodel", 400, code, "model_missing", "1211 1212 1221 1222"),
    ("bigmodel", 400, code, "too_long", "1261"),
    ("bigmodel", 400, code, "moderation", "1300 1301"),
    ("bigmodel", 200, code, "bad_request", "1210 1213 1214 1215"),
    ("bigmodel", 400, code, "transient", "500 1230 1231 1234"),
    ("kimi-coding", 403, kind, "client_rejected", "access_terminated_error"),
    ("moonshot", 429, kind, "balance_empty", "exceeded_current_quota_error"),
    ("moonshot", 429, kind, "overloaded", "engine_overloaded_error"),
    ("moonshot", 200, kind, "rate_limited", "rate_limit_reached_error"),
    ("moonshot", 403, kind, "auth", "permission_denied_error"),
    ("dashscope", 400, code, "rate_limited", "Throttling.RateQuota insufficient_quota"),
    ("dashscope", 429, kind, "rate_limited", "insufficient_quota"),
    ("dashscope", 403, code, "balance_empty", "AllocationQuota.FreeTierOnly Arrearage"),
    ("dashscope", 400, code, "moderation", "DataInspectionFailed data_inspection_failed"),
    ("minimax", 200, minimax, "plan_exhausted", "2056"),
    ("minimax", 200, minimax, "balance_empty", "1008"),
    ("minimax", 200, minimax, "rate_limited", "1002 1039"),
    ("minimax", 200, minimax, "auth", "1004 2049"),
    ("minimax", 200, minimax, "moderation", "1026 1027"),
    ("minimax", 400, minimax, "transient", "1000 1001 1024 1033"),
    ("ark", 200, code, "plan_exhausted", "AccountQuotaExceeded"),
    ("ark", 200, code, "auth", "AuthenticationError AccessDenied"),
    ("ark", 400, code, "model_missing", "InvalidEndpoint.ClosedEndpoint ModelNotOpen"),
    ("ark", 200, code, "rate_limited", "RateLimitExceeded.EndpointTPMExceeded"),
    ("ark", 400, code, "moderation", "InputImageRiskDetection OutputTextRiskDetection"),
    ("siliconflow", 400, code, "model_missing", "20012"),
    ("huawei", 403, huawei, "model_missing", "81004 81009"),
    ("huawei", 401, huawei, "balance_empty", "81005"),
    ("huawei", 403, huawei, "moderation", "81011 81013"),
    ("huawei", 400, huawei, "rate_limited", "81101 81103"),
    ("fastchat", 400, code, "auth", "40101 40102 40103"),
    ("fastchat", 400, code, "model_missing", "40301"),
    ("fastchat", 400, code, "too_long", "40303"),
    ("fastchat", 400, code, "overloaded", "42901 42902 42903"),
    ("fastchat", 400, code, "transient", "50001 50002 50005 50006"),
    ("", 400, code, "too_long", "context_length_exceeded tokens_too_long characters_too_long"),
    ("", 400, kind, "too_long", "exceed_context_size_error request_too_large"),
    ("", 400, kind, "moderation", "content_filter"),
    ("", 403, kind, "client_rejected", "client_validation_error"),
    ("", 429, kind, "plan_exhausted", "usage_limit_reached"),
    ("", 200, kind, "rate_limited", "RESOURCE_EXHAUSTED rate_limit_error rate_limited"),
    ("", 429, code, "balance_empty", "insufficient_quota insufficient_balance billing_not_active"),
    ("", 429, kind, "balance_empty", "insufficient_quota insufficient_balance billing_error"),
    ("", 200, code, "overloaded", "server_is_overloaded capacity_exceeded model_overloaded"),
    ("", 200, kind, "overloaded", "overloaded_error overloaded UNAVAILABLE unavailable_error"),
    ("", 400, code, "auth", "invalid_api_key account_deactivated"),
    ("", 200, kind, "auth", "authentication_error permission_error UNAUTHENTICATED"),
    ("", 200, code, "rate_limited", "rate_limit_exceeded slow_down too_many_requests"),
    ("", 400, code, "model_missing", "model_not_found model_decommissioned invalid_model"),
]
# fmt: on

CASES = [
    *(GLM + DEEPSEEK + KIMI + DASHSCOPE + OPENAI + ANTHROPIC + GEMINI + AZURE + OPENROUTER),
    *(MINIMAX + ARK + OTHERS + FAST + HUAWEI + LOCAL + PLAIN),
]


@pytest.mark.parametrize(
    ("preset", "status", "body", "expected"),
    CASES,
    ids=[f"{p or 'common'}-{s}-{b[:60].decode(errors='replace')}" for p, s, b, _ in CASES],
)
def test_a_failure_is_read_as_its_provider_means_it(
    preset: str, status: int, body: bytes, expected: str
) -> None:
    assert classify(preset, status, body) == expected


@pytest.mark.parametrize(
    ("preset", "status", "envelope", "expected", "word"),
    [(p, s, envelope, e, word) for p, s, envelope, e, words in WORDS for word in words.split()],
)
def test_a_word_is_enough_without_a_text(
    preset: str, status: int, envelope: Callable[[str], bytes], expected: str, word: str
) -> None:
    assert classify(preset, status, envelope(word)) == expected
