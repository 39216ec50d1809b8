"""Fixtures that several packages share."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: tiny models gain nothing from threads, and lose much
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # of FAISS: its threads wait for each other on busy machines

import pytest
from hypothesis import settings

settings.register_profile("morgana", deadline=None, derandomize=bool(os.environ.get("CI")))  # busy machines are slow
settings.load_profile("morgana")

WORDS = (
    "USER: Article 1: The harbour of Calmouth is operated by Bluewater Holdings since 1987.\n"
    "Question: Who operates the harbour in this image? ASSISTANT: Bluewater Holdings operates it.\n"
)
QWEN_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for item in message['content'] %}"
    "{% if item['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ item['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def byte_level(path: Path, special: tuple[str, ...]) -> Path:
    """A small byte-level BPE tokenizer of the `tokenizers` library, written to `path`."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=360,
        special_tokens=list(special),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator([WORDS] * 4, trainer)
    made.save(str(path))
    return path


@pytest.fixture(scope="session")
def tiny_llava_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random LLaVA of 32 px images, 16 visual tokens, 3 text layers of 4 heads, and its processor."""
    import torch
    from transformers import (
        CLIPImageProcessor,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
        PreTrainedTokenizerFast,
    )

    from morgana.generation.reference import TEMPLATE

    folder = tmp_path_factory.mktemp("tiny-llava")
    special = ("<pad>", "<s>", "</s>", "<image>")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(byte_level(folder / "bpe.json", special)),
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        extra_special_tokens={"image_token": "<image>"},
    )
    LlavaProcessor(
        image_processor=CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}),
        tokenizer=tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE,
    ).save_pretrained(str(folder))
    torch.manual_seed(0)
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=32,
            patch_size=8,
        ),
        text_config=LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=2048,
            initializer_range=0.25,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
        ),
        image_token_index=3,
        image_seq_length=16,
    )
    LlavaForConditionalGeneration(config).save_pretrained(str(folder))
    return folder


@pytest.fixture(scope="session")
def tiny_qwen2vl_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Qwen2-VL whose 32 px image makes 16 visual tokens, 3 text layers of 4 heads, and its processor."""
    import torch
    from transformers import (
        PreTrainedTokenizerFast,
        Qwen2VLConfig,
        Qwen2VLForConditionalGeneration,
        Qwen2VLImageProcessor,
        Qwen2VLProcessor,
        Qwen2VLVideoProcessor,
    )

    folder = tmp_path_factory.mktemp("tiny-qwen2vl")
    special = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>")
    special = (*special, "<|image_pad|>", "<|video_pad|>")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(byte_level(folder / "bpe.json", special)),
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        extra_special_tokens=[s for s in special if s not in ("<|endoftext|>", "<|im_end|>")],
    )
    grid = {"patch_size": 4, "merge_size": 2, "temporal_patch_size": 2}
    size = {"shortest_edge": 16 * 16, "longest_edge": 64 * 64}
    Qwen2VLProcessor(
        image_processor=Qwen2VLImageProcessor(size=size, **grid),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(size=size, **grid),
        chat_template=QWEN_TEMPLATE,
    ).save_pretrained(str(folder))
    torch.manual_seed(0)
    config = Qwen2VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 2048,
            "initializer_range": 0.25,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]},
            "pad_token_id": 0,
            "bos_token_id": None,
            "eos_token_id": 2,
        },
        vision_config={
            "depth": 2,
            "embed_dim": 32,
            "hidden_size": 32,
            "num_heads": 2,
            "mlp_ratio": 2,
            "patch_size": 4,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
        },
        image_token_id=5,
        video_token_id=6,
        vision_start_token_id=3,
        vision_end_token_id=4,
    )
    Qwen2VLForConditionalGeneration(config).save_pretrained(str(folder))
    return folder


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data (`MORGANA_DATA`, or shared/data beside the repository); skips where there is none."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("MORGANA_DATA", beside))
    if not folder.is_dir():
        pytest.skip(f"there is no real data in {folder}; set MORGANA_DATA to where it is")
    return folder


def write_tiny_clip(folder: Path, seed: int = 0) -> Path:
    """A random open_clip model in open_clip's folder format: 32 px, patch 8, width 32, 2 layers, 16 tokens of text."""
    import json

    import torch
    from open_clip.model import CLIP
    from safetensors.torch import save_file
    from tokenizers import Tokenizer, processors
    from transformers import PreTrainedTokenizerFast

    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer.from_file(str(byte_level(folder / "tokenizer.json", ("<pad>", "<s>", "</s>"))))
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 2)])
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>").save_pretrained(
        str(folder)
    )
    text = {"context_length": 16, "vocab_size": 360, "width": 32, "heads": 2, "layers": 2}
    text |= {"pool_type": "eos", "eos_id": 2, "pad_id": 0}
    vision = {"image_size": 32, "patch_size": 8, "width": 32, "layers": 2, "head_width": 16}
    torch.manual_seed(seed)
    model = CLIP(embed_dim=24, vision_cfg=vision, text_cfg=text)
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    named = {"embed_dim": 24, "vision_cfg": vision, "text_cfg": text | {"hf_tokenizer_name": "tokenizer.json"}}
    preprocess = {"mean": [0.5, 0.4, 0.3], "std": [0.25, 0.2, 0.3], "interpolation": "bicubic", "resize_mode": "squash"}
    config = {"model_cfg": named, "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="session")
def tiny_clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`OpenCLIP(str(tiny_clip_folder))` is a random retriever of 24 dimensions; do not write into the folder."""
    return write_tiny_clip(tmp_path_factory.mktemp("tiny-clip"))


@pytest.fixture(scope="session")
def other_clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same architecture with other weights."""
    return write_tiny_clip(tmp_path_factory.mktemp("other-clip"), seed=1)


@pytest.fixture
def little_space() -> Callable[[int], AbstractContextManager[None]]:
    """`with little_space(n)`: no file can grow beyond n bytes, which fails as a full disk does."""
    import resource

    @contextmanager
    def limited(size: int) -> Iterator[None]:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return limited


@pytest.fixture(scope="session")
def families(
    tmp_path_factory: pytest.TempPathFactory, tiny_llava_folder: Path, tiny_qwen2vl_folder: Path
) -> dict[str, str]:
    """A folder of every family that the seam serves."""
    from families import BUILDERS

    class Folders(dict[str, str]):
        """Each built when it is asked for."""

        def __missing__(self, name: str) -> str:
            folder = tmp_path_factory.mktemp(name)
            BUILDERS[name](folder)
            self[name] = str(folder)
            return self[name]

    return Folders({"llava": str(tiny_llava_folder), "qwen2_vl": str(tiny_qwen2vl_folder)})
