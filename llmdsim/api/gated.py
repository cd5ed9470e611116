"""
Request bodies that vLLM's OpenAPI document leaves out: embeddings, pooling, scores, adapters, tokens in.

Written in the document's own language and in vLLM's field order, which is the order of the errors.
"""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]

_TEXT: Schema = {"type": "string"}
_INT: Schema = {"type": "integer"}
_FLOAT: Schema = {"type": "number"}
_BOOL: Schema = {"type": "boolean"}
_DICT: Schema = {"type": "object", "additionalProperties": True}
_INT64: Schema = {"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1}
_SALT: Schema = {"type": "string", "minLength": 1, "maxLength": 1024}


def _array(items: Schema, **limits: object) -> Schema:
    return {"type": "array", "items": items, **limits}


def _enum(*options: str) -> Schema:
    return {"type": "string", "enum": list(options)}


def _any(*members: Schema) -> Schema:
    return {"anyOf": list(members)}


def _maybe(*members: Schema) -> Schema:
    return _any(*members, {"type": "null"})


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _body(*groups: dict[str, Schema], required: str = "", **more: object) -> Schema:
    fields = {name: schema for group in groups for name, schema in group.items()}
    return {"type": "object", "properties": fields, "required": required.split(), **more}


_MESSAGE = _any(
    *(
        _ref(f"ChatCompletion{role}MessageParam")
        for role in ("Developer", "System", "User", "Assistant", "Tool", "Function")
    ),
    _ref("CustomChatCompletionMessageParam"),
    _ref("openai_harmony__Message"),
)
_CHAT = _array(_MESSAGE)
_CHATS = _array(_array(_MESSAGE, minItems=1), minItems=1, sequence=True)
_PROMPT = _any(_array(_INT), _array(_array(_INT)), _TEXT, _array(_TEXT))

_SPECIAL = {"add_special_tokens": _BOOL}
_PADDING = {"padding": _maybe(_enum("max_length", "do_not_pad"))}
_TRUNCATE = {"truncate_prompt_tokens": _maybe({"type": "integer", "minimum": -1})}
_WHO = {"model": _maybe(_TEXT), "user": _maybe(_TEXT), **_TRUNCATE}
_REST = {
    "truncation_side": _maybe(_enum("left", "right")),
    "request_id": _TEXT,
    "priority": _INT64,
    "mm_processor_kwargs": _maybe(_DICT),
    "cache_salt": _maybe(_SALT),
}
_FORMAT = {
    "encoding_format": _enum("float", "base64", "bytes", "bytes_only"),
    "embed_dtype": _enum("float32", "float16", "bfloat16", "fp8_e4m3", "fp8_e5m2"),
    "endianness": _enum("native", "big", "little"),
}
_DIMENSIONS = {"dimensions": _maybe(_INT)}
_ACTIVATION = {"use_activation": _maybe(_BOOL)}
_TEMPLATE = {
    "add_generation_prompt": _BOOL,
    "continue_final_message": _BOOL,
    "chat_template": _maybe(_TEXT),
    "chat_template_kwargs": _maybe(_DICT),
    "media_io_kwargs": _maybe({"type": "object", "additionalProperties": _DICT}),
}
_TASKS = _enum("embed", "classify", "token_embed", "token_classify", "plugin", "embed&token_classify")
_EMBED = {**_SPECIAL, **_PADDING, **_FORMAT, **_DIMENSIONS, **_ACTIVATION}
_POOL = {**_SPECIAL, **_ACTIVATION, **_FORMAT, **_DIMENSIONS}
_BASIC = {**_WHO, **_PADDING, **_REST}
_SCORE = {
    **_ACTIVATION,
    **_BASIC,
    "max_tokens_per_query": _INT,
    "max_tokens_per_doc": _INT,
    "instruction": _maybe(_TEXT),
    "chat_template_kwargs": _maybe(_DICT),
}
_ONE = _any(_TEXT, _ref("ScoreMultiModalParam"))
_SOME = _any(_TEXT, _ref("ScoreMultiModalParam"), _array(_ONE))
_HASHES = {"type": "object", "additionalProperties": _array(_TEXT)}
_RANGES = {"type": "object", "additionalProperties": _array(_DICT)}
_FEATURES = "mm_hashes mm_placeholders"
_PARTS = ("ImageParam", "ImageEmbedsParam", "TextParam", "VideoParam")

COMPONENTS: dict[str, Schema] = {
    "EmbeddingCompletionRequest": _body(_EMBED, {"input": _PROMPT}, _WHO, _REST, required="input"),
    "EmbeddingChatRequest": _body(_EMBED, _TEMPLATE, {"messages": _CHAT}, _WHO, _REST, required="messages"),
    "EmbeddingBatchChatRequest": _body(_EMBED, _TEMPLATE, _WHO, _REST, {"messages": _CHATS}, required="messages"),
    "EmbeddingChatInputRequest": _body(
        _EMBED, _TEMPLATE, {"messages": _CHAT}, _WHO, _REST, {"input": _CHAT}, required="messages input"
    ),
    "EmbeddingBatchChatInputRequest": _body(
        _EMBED, _TEMPLATE, _WHO, _REST, {"messages": _CHATS, "input": _CHATS}, required="messages input"
    ),
    "PoolingCompletionRequest": _body(_POOL, {"input": _PROMPT}, _BASIC, {"task": _maybe(_TASKS)}, required="input"),
    "PoolingChatRequest": _body(
        _POOL, _TEMPLATE, {"messages": _CHAT}, _BASIC, {"task": _maybe(_TASKS)}, required="messages"
    ),
    "IOProcessorRequest": _body(_FORMAT, _BASIC, {"data": {}, "task": _TASKS}, required="data"),
    "ClassificationCompletionRequest": _body(_SPECIAL, _ACTIVATION, {"input": _PROMPT}, _BASIC, required="input"),
    "ClassificationChatRequest": _body(
        _SPECIAL, _ACTIVATION, _TEMPLATE, {"messages": _CHAT}, _BASIC, required="messages"
    ),
    "ScoreQueriesDocumentsRequest": _body(_SCORE, {"queries": _SOME, "documents": _SOME}, required="queries documents"),
    "ScoreQueriesItemsRequest": _body(_SCORE, {"queries": _SOME, "items": _SOME}, required="queries items"),
    "ScoreDataRequest": _body(_SCORE, {"data_1": _SOME, "data_2": _SOME}, required="data_1 data_2"),
    "ScoreTextRequest": _body(_SCORE, {"text_1": _SOME, "text_2": _SOME}, required="text_1 text_2"),
    "RerankRequest": _body(
        _SCORE,
        {"query": _ONE, "documents": _SOME, "top_n": {"type": "integer", "minimum": 0}},
        required="query documents",
    ),
    "ScoreMultiModalParam": _body(
        {"content": _array(_any(*(_ref(f"ChatCompletionContentPart{part}") for part in _PARTS)))}, required="content"
    ),
    "LoadLoRAAdapterRequest": _body(
        {"lora_name": _TEXT, "lora_path": _TEXT, "load_inplace": _BOOL, "is_3d_lora_weight": _BOOL},
        required="lora_name lora_path",
    ),
    "UnloadLoRAAdapterRequest": _body({"lora_name": _TEXT, "lora_int_id": _maybe(_INT)}, required="lora_name"),
    "GenerateRequest": _body(
        {
            "request_id": _TEXT,
            "token_ids": _array(_INT, minItems=1),
            "token_offsets": _maybe(_array(_array(_INT, minItems=2, maxItems=2))),
            "features": _maybe(_body({"mm_hashes": _HASHES, "mm_placeholders": _RANGES}, required=_FEATURES)),
            "content_parts": _maybe(_array(_DICT)),
            "sampling_params": _ref("SamplingParams"),
            "model": _maybe(_TEXT),
            "reasoning_ended": _maybe(_BOOL),
            "reasoning_parser_kwargs": _maybe(_body({"chat_template_kwargs": _DICT}, additionalProperties=False)),
            "return_token_ids": _maybe(_BOOL),
            "output_mode": _enum("tokens", "text", "derender"),
            "parse_context": _maybe(_body({"parallel_tool_calls": _maybe(_BOOL), "include_reasoning": _BOOL})),
            "stream": _maybe(_BOOL),
            "stream_options": _maybe(_ref("StreamOptions")),
            "cache_salt": _maybe(_SALT),
            "priority": _INT64,
            "kv_transfer_params": _maybe(_DICT),
            "ec_transfer_params": _maybe(_DICT),
        },
        required="token_ids sampling_params",
    ),
    "SamplingParams": _body(
        {
            "n": _INT,
            **dict.fromkeys(("presence_penalty", "frequency_penalty", "repetition_penalty", "temperature"), _FLOAT),
            "watermarking": _maybe(_BOOL),
            "top_p": _FLOAT,
            "top_k": _INT,
            "min_p": _FLOAT,
            "seed": _maybe(_INT),
            "stop": _maybe(_TEXT, _array(_TEXT)),
            "stop_token_ids": _maybe(_array(_INT)),
            "ignore_eos": _BOOL,
            "max_tokens": _maybe(_INT),
            "min_tokens": _INT,
            "logprobs": _maybe(_INT),
            "prompt_logprobs": _maybe(_INT),
            "prompt_logprob_start": _maybe(_INT),
            "logprob_token_ids": _maybe(_array(_INT)),
            "flat_logprobs": _BOOL,
            "detokenize": _BOOL,
            "skip_special_tokens": _BOOL,
            "spaces_between_special_tokens": _BOOL,
            "include_stop_str_in_output": _BOOL,
            "stream_interval": _maybe(_INT),
            "skip_clone": _BOOL,
            "output_text_buffer_length": _INT,
            "structured_outputs": _maybe(_ref("StructuredOutputsParams")),
            "allowed_token_ids": _maybe(_array(_INT)),
            "extra_args": _maybe(_DICT),
            "bad_words": _maybe(_array(_TEXT)),
            "skip_reading_prefix_cache": _maybe(_BOOL),
            "repetition_detection": _maybe(_ref("RepetitionDetectionParams")),
            "routed_experts_prompt_start": _INT,
            "trace_decode_token_ids": _maybe(_array(_INT)),
        }
    ),
    # No schema can tell of a Python object, so the document is silent about this part of a message's content.
    "CustomChatCompletionContentPILImageParam": _body(
        {"image_pil": _maybe(_body({"image_pil": {}}, required="image_pil")), "uuid": _maybe(_TEXT)}
    ),
}

UNIONS: dict[str, tuple[str, ...]] = {
    "EmbeddingRequest": tuple(
        f"Embedding{kind}Request" for kind in ("Completion", "Chat", "BatchChat", "ChatInput", "BatchChatInput")
    ),
    "PoolingRequest": ("PoolingCompletionRequest", "PoolingChatRequest", "IOProcessorRequest"),
    "ClassificationRequest": ("ClassificationCompletionRequest", "ClassificationChatRequest"),
    "ScoreRequest": (
        "ScoreQueriesDocumentsRequest",
        "ScoreQueriesItemsRequest",
        "ScoreDataRequest",
        "ScoreTextRequest",
    ),
    "TokenizeRequest": ("TokenizeCompletionRequest", "TokenizeChatRequest"),
}
