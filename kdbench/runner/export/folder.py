"""A folder that timm and the hub read: config.json, model.safetensors and README.md."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from kdbench import models
from kdbench.runner.export.formats import Export
from kdbench.utils.state_dicts import save_weights

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"


def write_folder(export: Export, card: str, folder: Path) -> None:
    """Write the student so that ``local-dir:FOLDER`` of timm and kdbench loads it. Raises OSError."""
    folder.mkdir(parents=True)
    save_weights(folder / WEIGHTS, export.state, dict(export.facts))
    (folder / CONFIG).write_text(json.dumps(_config(export), indent=2) + "\n", "utf-8")
    (folder / CARD).write_text(card, "utf-8")


def _config(export: Export) -> dict[str, Any]:
    """The configuration as `timm.models.save_for_hf` writes it, and what kdbench knows beside it."""
    student, model = export.description, export.model
    known: dict[str, Any] = dict(model.pretrained_cfg)  # type: ignore[arg-type]
    config = {
        "architecture": models.full_name(student.arch),
        "num_classes": student.num_classes,
        "num_features": model.num_features,
        "model_args": {**student.args, "num_classes": student.num_classes, "in_chans": 3},
        "pretrained_cfg": {
            "num_classes": student.num_classes,
            "input_size": [3, student.size, student.size],
            "fixed_input_size": bool(known.get("fixed_input_size")),
            "interpolation": student.resize["interpolation"],
            "crop_pct": student.resize["crop"] / student.resize["shorter_side"],
            "crop_mode": "center",
            "mean": list(student.mean),
            "std": list(student.std),
            "first_conv": known.get("first_conv"),
            "classifier": known.get("classifier"),
        },
        "kdbench": export.plain,
    }
    if student.class_names is not None:
        config["label_names"] = list(student.class_names)
    return config
