"""Small random networks in the file forms of their makers."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch

from instbench.evaluators import shipped_folder
from instbench.evaluators.yolo_model import quiet_ultralytics

TOKENIZER = shipped_folder("shapes-clip") / "tokenizer"


def yolo_network(architecture: str = "yolov8n-seg.yaml", names: tuple[str, ...] = ("cat", "hot dog")) -> Any:
    """A network of ultralytics whose scores and batch statistics are not those of a fresh one."""
    with quiet_ultralytics():
        from ultralytics.cfg import get_cfg
        from ultralytics.nn.tasks import DetectionModel, SegmentationModel
    torch.manual_seed(0)
    build = SegmentationModel if "seg" in architecture else DetectionModel
    model = build(architecture, nc=len(names), verbose=False)
    for name, tensor in model.state_dict().items():
        if name.endswith(("running_mean", "bn.bias")):
            tensor.copy_(torch.randn_like(tensor) * 0.1)
        elif ".cv3." in name and name.endswith("2.bias"):
            tensor.fill_(-2.0)
    model.names = dict(enumerate(names))
    model.args = get_cfg()
    return model


def save_yolo(path: Path, network: Any, *, as_ema: bool = True, imgsz: int = 96, **fields: Any) -> Path:
    """Writes a ``.pt`` as the trainer of ultralytics does: the whole network, pickled, in half precision."""
    from ultralytics.cfg import get_cfg

    half = copy.deepcopy(network).half()
    content = {
        "epoch": -1,
        "best_fitness": None,
        "model": None if as_ema else half,
        "ema": half if as_ema else None,
        "updates": None,
        "optimizer": None,
        "train_args": {**vars(get_cfg()), "imgsz": imgsz},
        "train_metrics": {"fitness": 0.5},
        "date": "2026-01-01T00:00:00",
        "version": "8",
    }
    torch.save({**content, **fields}, path)
    return path


def save_mask2former(folder: Path) -> Path:
    """A Mask2Former with a narrow Swin backbone and two categories."""
    from transformers import (
        Mask2FormerConfig,
        Mask2FormerForUniversalSegmentation,
        Mask2FormerImageProcessor,
        SwinConfig,
    )

    torch.manual_seed(0)
    backbone = SwinConfig(
        image_size=64,
        embed_dim=16,
        depths=[1, 1, 1, 1],
        num_heads=[1, 1, 2, 2],
        window_size=4,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    config = Mask2FormerConfig(
        backbone_config=backbone,
        feature_size=32,
        mask_feature_size=32,
        hidden_dim=32,
        encoder_feedforward_dim=32,
        dim_feedforward=32,
        encoder_layers=1,
        decoder_layers=2,
        num_attention_heads=2,
        num_queries=6,
        id2label={0: "cat", 1: "dog"},
        label2id={"cat": 0, "dog": 1},
    )
    Mask2FormerForUniversalSegmentation(config).save_pretrained(folder)
    Mask2FormerImageProcessor(
        size={"shortest_edge": 64, "longest_edge": 128}, size_divisor=32, num_labels=2
    ).save_pretrained(folder)
    return folder


def save_owl(folder: Path, kind: str = "owlv2") -> Path:
    """An OWLv2 or OWL-ViT of two layers, with the small tokenizer of the Shapes CLIP."""
    import transformers
    from transformers import CLIPTokenizer

    torch.manual_seed(0)
    tokenizer = CLIPTokenizer.from_pretrained(TOKENIZER)
    name = {"owlv2": "Owlv2", "owlvit": "OwlViT"}[kind]
    layers = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = getattr(transformers, f"{name}Config")(
        text_config={
            **layers,
            "vocab_size": len(tokenizer),
            "max_position_embeddings": 16,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        vision_config={**layers, "image_size": 64, "patch_size": 16},
        projection_dim=32,
    )
    model = getattr(transformers, f"{name}ForObjectDetection")(config)
    for parameter in model.parameters():  # fresh weights give every box and category nearly the same score
        if parameter.ndim > 1:
            parameter.data.normal_(0, 0.3)
    model.save_pretrained(folder)
    images = getattr(transformers, f"{name}ImageProcessor")(size={"height": 64, "width": 64})
    getattr(transformers, f"{name}Processor")(image_processor=images, tokenizer=tokenizer).save_pretrained(
        folder
    )
    return folder


def inception_weights(path: Path) -> Path:
    """Random weights under the names of torch-fidelity's Inception v3."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    original = FeatureExtractorInceptionV3.load_state_dict
    try:
        FeatureExtractorInceptionV3.load_state_dict = lambda self, state: None
        empty = path.with_suffix(".empty")
        torch.save({}, empty)
        torch.manual_seed(0)
        network = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], str(empty))
    finally:
        FeatureExtractorInceptionV3.load_state_dict = original
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):  # fresh weights would fade out over the layers
            torch.nn.init.kaiming_normal_(module.weight)
    torch.save(network.state_dict(), path)
    return path
