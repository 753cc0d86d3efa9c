"""A program that fits and predicts with two ranks, as users start it, and says which rows each rank was given.

python tests/platforms/lightning_ranks.py PROJECT STRATEGY
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import lightning
import pandas as pd
import torch

from featurestore.integrations.lightning import FeatureDataModule, FeatureTensors, TimeSplit


class Seen(lightning.LightningModule):
    """Learns a little, and writes down what it was given."""

    def __init__(self, folder: str) -> None:
        super().__init__()
        self.folder = folder
        self.layer = torch.nn.Linear(2, 1)
        self.given: dict[str, list[Any]] = {"train": [], "validate": []}

    def training_step(self, batch: Any, number: int) -> Any:
        features, label = batch
        self.given["train"].append((self.current_epoch, label.tolist()))
        return torch.nn.functional.mse_loss(self.layer(features).squeeze(1), label)

    def validation_step(self, batch: Any, number: int) -> None:
        features, label = batch
        self.given["validate"].append((self.current_epoch, label.tolist()))
        self.log("mean", self.layer(features).mean(), sync_dist=True)

    def predict_step(self, batch: Any, number: int) -> Any:
        return batch

    def on_fit_end(self) -> None:
        Path(self.folder, f"given-{self.global_rank}.json").write_text(json.dumps(self.given))

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 1e-6)


def main(folder: str, strategy: str) -> None:
    fill = {"drivers__fare": 0.0, "drivers__trips": 0}
    data = FeatureDataModule(
        folder, "ranking", f"{folder}/spine.parquet", path=f"{folder}/training.parquet", label="tip", batch_size=8,
        split=TimeSplit("2026-01-04", gap="12h"), tensors=FeatureTensors(torch.float32, fill=fill),
        predict=pd.DataFrame({"driver_id": ["d1", "d3", "d2"]}),
    )  # fmt: skip
    words = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "default_root_dir": folder}
    trainer = lightning.Trainer(
        max_epochs=2, accelerator="cpu", devices=2, strategy=strategy, num_sanity_val_steps=0, **words
    )
    module = Seen(folder)
    trainer.fit(module, data)
    if strategy == "ddp":  # elsewhere a module that predicts returns nothing
        found = [batch.tolist() for batch in trainer.predict(module, data)]
        Path(folder, f"predicted-{trainer.global_rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
