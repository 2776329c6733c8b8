"""What Hugging Face transformers answers with the demo model: rewrites the greedy answers in reference.json.

float32 on the CPU, eager attention, one conversation at a time, at most 80 new tokens; `gap` is the distance between the two
best logits at each step. Usage: reference.py MODEL_FOLDER REFERENCE_JSON OUT_JSON
"""
import json, sys

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

folder, reference_path, out_path = sys.argv[1:]
reference = json.load(open(reference_path))
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
with torch.no_grad():
    for chat in reference["chats"]:
        ids = torch.tensor([chat["prompt_ids"]])
        out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=80, do_sample=False, output_logits=True, return_dict_in_generate=True)
        chat["greedy"] = out.sequences[0, ids.shape[1]:].tolist()
        chat["text"] = tokenizer.decode(chat["greedy"], skip_special_tokens=True)
        chat["gap"] = [round(float(two[0] - two[1]), 6) for two in (torch.topk(step[0].float(), 2).values for step in out.logits)]
json.dump(reference, open(out_path, "w"), separators=(",", ":"))
