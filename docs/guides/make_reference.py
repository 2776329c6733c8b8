"""Makes what a model is compared with: prompts, and what Hugging Face transformers computes of them in float32.

    python make_reference.py CONFIG.json OUT   a tiny model with this config and random weights: checkpoint and reference
    python make_reference.py MODEL OUT         a folder or a hub id: the reference alone

OUT/reference.safetensors has for k = 0, 1, 2: prompt.k i32 [n]; logits.k f32 [n, vocab] (k = 2: the last row alone); greedy.k
i32 [24], each token computed from scratch; gap.k f32 [24], the distance between the two best logits at each of them.
"""
import os, shutil, sys
import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM

source, out = sys.argv[1:]
os.makedirs(out, exist_ok=True)
torch.manual_seed(0)
if source.endswith('.json'):
    shutil.copy(source, os.path.join(out, 'config.json'))
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(out))
    with torch.no_grad():  # so that nothing is zero, one, or too small to matter
        for w in model.parameters():
            w.copy_(w + 0.2 * torch.randn_like(w) if w.dim() < 2 else torch.randn_like(w) * w.shape[-1] ** -0.5)
    model.to(torch.bfloat16).save_pretrained(out)
    source = out
model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32, attn_implementation='eager').eval()
logits_of = lambda ids: model(ids, use_cache=False).logits[0].float()
reference = {}
with torch.no_grad():
    for k, length in enumerate((5, 19, 61)):
        ids = torch.randint(3, model.config.vocab_size, (1, length))
        logits = logits_of(ids)
        reference |= {f'prompt.{k}': ids[0].int(), f'logits.{k}': logits[-1:].clone() if k == 2 else logits}
        best = []
        for _ in range(24):
            best.append(logits_of(ids)[-1].topk(2))
            ids = torch.cat([ids, best[-1].indices[:1][None]], 1)
        reference[f'greedy.{k}'] = torch.stack([b.indices[0] for b in best]).int()
        reference[f'gap.{k}'] = torch.stack([b.values[0] - b.values[1] for b in best])
save_file(reference, os.path.join(out, 'reference.safetensors'), {'format': 'pt'})
