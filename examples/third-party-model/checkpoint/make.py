"""Lantern as its inventors would have written it, in numpy: makes this folder's checkpoint, with random weights, and what it computes.

    python checkpoint/make.py
"""
import json, os
import numpy as np

here = os.path.dirname(os.path.abspath(__file__))
rng = np.random.default_rng(7)
C = dict(hidden_size=40, num_attention_heads=4, num_key_value_heads=2, head_dim=12, num_rays=3, flame_size=52,
         vocab_size=97, eps=1e-5, max_position_embeddings=256, rope_theta=5000.0, glow='silu', eos_token_id=96)
H, D, heads, kv, F, V = C['hidden_size'], C['head_dim'], 4, 2, C['flame_size'], C['vocab_size']

def bfloat16(x):  # numpy has none: float32 numbers that bfloat16 can hold
    bits = np.asarray(x, np.float32).view(np.uint32)
    return ((bits + 0x7fff + (bits >> 16 & 1)) & np.uint32(0xffff0000)).view(np.float32)

normal = lambda *shape: bfloat16(rng.normal(size=shape) / np.sqrt(shape[-1]))
near_one = lambda n: bfloat16(1 + 0.2 * rng.normal(size=n))
W = {'lantern.words.weight': normal(V, H) * 4, 'lantern.lens.weight': near_one(H), 'beam.weight': normal(V, H) * 4}
for i in range(C['num_rays']):
    ray = f'lantern.rays.{i}.'
    W |= {ray + 'veil.weight': near_one(H), ray + 'mantle.weight': near_one(H),
          ray + 'gaze.ask.weight': normal(heads * D, H), ray + 'gaze.know.weight': normal(kv * D, H),
          ray + 'gaze.tell.weight': normal(kv * D, H), ray + 'gaze.glow.weight': normal(heads, D, H),
          ray + 'gaze.lead.weight': normal(H, heads * D), ray + 'burner.wick.weight': normal(F, H),
          ray + 'burner.oil.weight': normal(F, H), ray + 'burner.flame.weight': normal(F, H)}

norm = lambda x, w: x / np.sqrt((x * x).mean(-1, keepdims=True) + C['eps']) * w
silu = lambda x: x / (1 + np.exp(-x))

def turned(x):  # [tokens, heads, D]
    angles = np.arange(len(x))[:, None] * C['rope_theta'] ** (-np.arange(0, D, 2) / D)
    cos, sin = np.cos(angles)[:, None], np.sin(angles)[:, None]
    a, b = x[..., :D // 2], x[..., D // 2:]
    return np.concatenate([a * cos - b * sin, b * cos + a * sin], -1)

def logits(ids):
    P = {k: v.astype(np.float64) for k, v in W.items()}
    n, x = len(ids), P['lantern.words.weight'][ids]
    for i in range(C['num_rays']):
        p = lambda name: P[f'lantern.rays.{i}.{name}.weight']
        h = norm(x, p('veil'))
        q, k, v = ((h @ p('gaze.' + name).T).reshape(n, -1, D) for name in ('ask', 'know', 'tell'))
        if i % 2: q, k = turned(q), turned(k)
        k, v = np.repeat(k, heads // kv, 1), np.repeat(v, heads // kv, 1)
        scores = np.einsum('qhd,khd->hqk', q, k) / np.sqrt(D) + np.triu(np.full((n, n), -np.inf), 1)
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        seen = np.einsum('hqk,khd->qhd', scores / scores.sum(-1, keepdims=True), v)
        glow = silu(np.einsum('th,ndh->tnd', h, p('gaze.glow')))
        x = x + (glow * seen).reshape(n, -1) @ p('gaze.lead').T
        h = norm(x, p('mantle'))
        x = x + (np.maximum(h @ p('burner.wick').T, 0) ** 2 * (h @ p('burner.oil').T)) @ p('burner.flame')
    return (norm(x, P['lantern.lens.weight']) @ P['beam.weight'].T).astype(np.float32)

def save(name, arrays, kinds={'float32': 'F32', 'int32': 'I32', 'uint16': 'BF16'}):
    header, at = {'__metadata__': {'format': 'pt'}}, 0
    for key, a in arrays.items():
        header[key] = dict(dtype=kinds[str(a.dtype)], shape=list(a.shape), data_offsets=[at, at := at + a.nbytes])
    text = json.dumps(header).encode()
    text += b' ' * (-len(text) % 8)
    with open(os.path.join(here, name), 'wb') as f:
        f.write(len(text).to_bytes(8, 'little') + text + b''.join(np.ascontiguousarray(a).tobytes() for a in arrays.values()))

def dump(name, value):
    with open(os.path.join(here, name), 'w') as f:
        json.dump(value, f, indent=1, ensure_ascii=False); f.write('\n')

# A token for every printable character, and one that ends an answer.
characters = {('Ġ' if c == 32 else chr(c)): c - 32 for c in range(32, 127)} | {'Ċ': 95}
end = dict(id=96, content='<out>', special=True, single_word=False, lstrip=False, rstrip=False, normalized=False)
level = dict(type='ByteLevel', add_prefix_space=False, trim_offsets=True, use_regex=False)
dump('tokenizer.json', dict(version='1.0', truncation=None, padding=None, added_tokens=[end], normalizer=None, pre_tokenizer=level,
                            post_processor=None, decoder=level, model=dict(type='BPE', dropout=None, unk_token=None, continuing_subword_prefix=None,
                            end_of_word_suffix=None, fuse_unk=False, byte_fallback=False, vocab=characters | {'<out>': 96}, merges=[])))
dump('config.json', dict(architectures=['LanternForCausalLM'], dtype='bfloat16', **C))
save('model.safetensors', {k: (v.view(np.uint32) >> 16).astype(np.uint16) for k, v in W.items()})
out = {}
for k, text in enumerate(('Light the lantern.', 'What do you see?', 'A' * 70 + 'nd then?')):
    ids = [ord(c) - 32 for c in text]
    out[f'prompt.{k}'], out[f'logits.{k}'] = np.array(ids, np.int32), logits(ids)
    greedy, gap = [], []
    for _ in range(24):
        row = logits(ids)[-1]
        best = np.sort(row)
        greedy.append(int(row.argmax())); gap.append(best[-1] - best[-2]); ids.append(greedy[-1])
    out[f'greedy.{k}'], out[f'gap.{k}'] = np.array(greedy, np.int32), np.array(gap, np.float32)
    print(text, '→', ''.join(chr(i + 32) for i in greedy), min(gap))
save('reference.safetensors', out)
