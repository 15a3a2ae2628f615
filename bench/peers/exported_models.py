"""Loads the folders of `node scripts/export_models.mjs <folder>` in transformers, and compares logits.

    python3 bench/peers/exported_models.py <folder>
"""

import json
import pathlib
import sys

import torch
import transformers

print("transformers", transformers.__version__, "torch", torch.__version__)
worst = 0.0
for folder in sorted(pathlib.Path(sys.argv[1]).iterdir()):
    wanted = json.loads((folder / "logits.json").read_text())
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    with torch.no_grad():
        logits = model(torch.tensor([wanted["ids"]])).logits[0]
    ours = torch.tensor(wanted["logits"])
    error = ((logits - ours).abs().max() / ours.abs().max()).item()
    worst = max(worst, error)
    print(f"{folder.name}: {model.__class__.__name__}, largest difference {error:.1e} of the largest logit")
assert worst < 1e-4, worst
