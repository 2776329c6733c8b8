"""Computes the calls that record-ops.mjs wrote down with PyTorch on the GPU and compares: python3 compare-torch.py FOLDER

What PyTorch has an op for is done by that op (linear, embedding, rms_norm, layer_norm, gelu, scaled_dot_product_attention, topk,
log_softmax, float8 conversion); the rest is written from the definition in kernels.ts. In float64 where PyTorch has that, else in
float32. Prints a table: of each op and output type the calls, and the largest error relative to the root mean square of the output.
"""

import json
import math
import sys

import torch
import torch.nn.functional as F

torch.backends.cuda.matmul.allow_tf32 = False
folder = sys.argv[1]
recorded = json.load(open(f'{folder}/calls.json'))
data = bytearray(open(f'{folder}/data.bin', 'rb').read())
GPU = 'cuda'
STORED = {'f32': torch.float32, 'bf16': torch.bfloat16, 'f16': torch.float16, 'f8e4m3': torch.float8_e4m3fn, 'f8e5m2': torch.float8_e5m2}
MOST = {'f8e4m3': 448.0, 'f8e5m2': 57344.0}
PAGE = 16


def tensor(d, exact=True):
    if d is None:
        return None
    integer = d['dtype'] == 'i32'
    count = math.prod(d['shape'])
    if count == 0:
        return torch.zeros(d['shape'], device=GPU, dtype=torch.int64 if integer else torch.float64)
    flat = torch.frombuffer(data, dtype=torch.int32 if integer else torch.float32, count=count, offset=d['at'])
    return flat.reshape(d['shape']).to(GPU).to(torch.int64 if integer else torch.float64)


def rounded(x, dtype):
    """x as it is once stored in a type; in float64."""
    if dtype in MOST:
        x = x.clamp(-MOST[dtype], MOST[dtype])
    return x.to(torch.float32).to(STORED[dtype]).to(torch.float64) if dtype in MOST else x.to(STORED[dtype]).to(torch.float64)


def act(x, name):
    return {
        'silu': F.silu,
        'gelu': F.gelu,
        'geluTanh': lambda v: F.gelu(v, approximate='tanh'),
        'relu': F.relu,
        'relu2': lambda v: F.relu(v) ** 2,
    }[name](x)


def rms(x, w, eps, offset):
    return F.rms_norm(x, (x.shape[-1],), w + offset, eps)


def rotate(x, positions, table, options):
    half = table.shape[-1] // 2
    rows = positions.clone()
    if options.get('selector'):
        rows = rows + torch.where(tensor(options['selector']) > options.get('bound', 0), table.shape[0] // 2, 0)
    cos, sin = table[rows, :half].unsqueeze(1), table[rows, half:].unsqueeze(1)
    y = x.clone()
    if options.get('interleaved'):
        a, b = x[..., 0 : 2 * half : 2], x[..., 1 : 2 * half : 2]
        y[..., 0 : 2 * half : 2], y[..., 1 : 2 * half : 2] = a * cos - b * sin, b * cos + a * sin
    else:
        a, b = x[..., :half], x[..., half : 2 * half]
        y[..., :half], y[..., half : 2 * half] = a * cos - b * sin, b * cos + a * sin
    return y


caches = {}


def cache_of(d):
    key = (d['cache'], json.dumps(d['shape'], sort_keys=True), d['pages'], current)
    if key not in caches:
        s = d['shape']
        slots = d['pages'] * PAGE
        caches[key] = (
            torch.zeros(slots, s['kvHeads'], s['keyDim'], device=GPU, dtype=torch.float64),
            torch.zeros(slots, s['kvHeads'], s['valueDim'], device=GPU, dtype=torch.float64),
        )
    return caches[key]


def write_cache(cache, k, v, slots):
    keys, values = cache_of(cache)
    slots = tensor(slots)
    dtype = cache['shape']['dtype']
    keys[slots], values[slots] = rounded(tensor(k), dtype), rounded(tensor(v), dtype)
    return []


def attention(out, q, cache, batch, options):
    keys, values = cache_of(cache)
    q, y = tensor(q), tensor(out)
    starts, lengths, tables = (tensor(batch[n]) for n in ('queryStarts', 'contextLengths', 'pageTables'))
    heads, group = q.shape[1], q.shape[1] // cache['shape']['kvHeads']
    window, cap = options.get('window', 0), options.get('softCap', 0)
    slopes, sinks = (tensor(options[n]) if options.get(n) else None for n in ('alibiSlopes', 'sinks'))
    for s in range(lengths.shape[0]):
        first, last, length = int(starts[s]), int(starts[s + 1]), int(lengths[s])
        if last == first:
            continue
        at = torch.arange(length, device=GPU)
        slots = tables[s, at // PAGE] * PAGE + at % PAGE
        k = keys[slots].repeat_interleave(group, 1).transpose(0, 1)
        v = values[slots].repeat_interleave(group, 1).transpose(0, 1)
        x = q[first:last].transpose(0, 1)
        place = torch.arange(length - (last - first), length, device=GPU).unsqueeze(1)
        seen = at.unsqueeze(0) <= place
        if window > 0:
            seen &= at.unsqueeze(0) > place - window
        bias = torch.zeros(heads, last - first, length, device=GPU, dtype=torch.float64)
        if slopes is not None:
            bias += slopes.view(-1, 1, 1) * (at.unsqueeze(0) - place)
        bias.masked_fill_(~seen, -math.inf)
        if cap == 0 and sinks is None:
            o = F.scaled_dot_product_attention(x.unsqueeze(0), k.unsqueeze(0), v.unsqueeze(0), attn_mask=bias.unsqueeze(0), scale=options['scale'])[0]
        else:
            scores = x @ k.transpose(1, 2) * options['scale']
            if cap:
                scores = cap * torch.tanh(scores / cap)
            scores = scores + bias
            if sinks is not None:
                scores = torch.cat([scores, sinks.view(-1, 1, 1).expand(-1, last - first, 1)], 2)
            o = torch.softmax(scores, -1)[..., :length] @ v
        y[first:last] = o.transpose(0, 1).reshape(last - first, -1)
    return [y]


def penalize(logits, penalties, history):
    y = tensor(logits)
    repetition, presence, frequency = (tensor(penalties[n]) for n in ('repetition', 'presence', 'frequency'))
    po, pi, oo, oi = (tensor(history[n]) for n in ('promptOffsets', 'promptIds', 'outputOffsets', 'outputIds'))
    vocab = y.shape[1]
    for r in range(y.shape[0]):
        prompt, output = pi[po[r] : po[r + 1]], oi[oo[r] : oo[r + 1]]
        inside = lambda ids: ids[(ids >= 0) & (ids < vocab)]
        counts = torch.bincount(inside(output), minlength=vocab)
        seen = (torch.bincount(inside(prompt), minlength=vocab) + counts) > 0
        y[r] = torch.where(seen, torch.where(y[r] > 0, y[r] / repetition[r], y[r] * repetition[r]), y[r])
        y[r] -= presence[r] * (counts > 0) + frequency[r] * counts
    return [y]


def add_sparse(logits, offsets, ids, values):
    y, offsets, ids, values = tensor(logits), tensor(offsets), tensor(ids), tensor(values)
    for r in range(y.shape[0]):
        y[r].index_add_(0, ids[offsets[r] : offsets[r + 1]], values[offsets[r] : offsets[r + 1]])
    return [y]


def log_probs(values, ids, ranks, logits, chosen):
    x, chosen, n = tensor(logits), tensor(chosen), values['shape'][1] - 1
    x = torch.where(torch.isnan(x), -math.inf, x)
    vocab = x.shape[1]
    # An infinite logit has all of the probability.
    top = x.max(1, keepdim=True)[0]
    logs = torch.where(torch.isposinf(top), torch.where(torch.isposinf(x), -torch.log(torch.isposinf(x).sum(1, keepdim=True)), -math.inf), torch.log_softmax(x, -1))
    logs = torch.where(torch.isneginf(x), -math.inf, logs)
    inside = (chosen >= 0) & (chosen < vocab)
    at_chosen = chosen.clamp(0, vocab - 1).unsqueeze(1)
    own = torch.where(inside.unsqueeze(1), logs.gather(1, at_chosen), -math.inf)
    # Stable, so that ties go to the lower id as they do here.
    order = torch.sort(x, dim=-1, descending=True, stable=True)[1]
    mine = x.gather(1, at_chosen)
    places = torch.arange(vocab, device=GPU).unsqueeze(0)
    rank = (1 + ((x > mine) | ((x == mine) & (places < at_chosen))).sum(1)) * inside
    return [torch.cat([own, logs.gather(1, order[:, :n])], 1), torch.cat([chosen.unsqueeze(1), order[:, :n]], 1), rank]


def philox(counter, key):
    """Philox4x32-10; counters and keys as lists of int64 tensors of 32-bit words."""
    low = 0xFFFFFFFF
    c, k = list(counter), list(key)
    for _ in range(10):
        # 32 x 32 bits without passing 63: by halves.
        def product(a, m):
            lo = (a & 0xFFFF) * m
            hi = (a >> 16) * m + (lo >> 16)
            return (hi >> 16) & low, ((hi & 0xFFFF) << 16) | (lo & 0xFFFF)

        h0, l0 = product(c[0], 0xD2511F53)
        h1, l1 = product(c[2], 0xCD9E8D57)
        c = [h1 ^ c[1] ^ k[0], l1, h0 ^ c[3] ^ k[1], l0]
        k = [(k[0] + 0x9E3779B9) & low, (k[1] + 0xBB67AE85) & low]
    return c


def sample(tokens, logits, batch):
    x = tensor(logits)
    temperature, top_k, top_p, min_p, seeds = (tensor(batch[n]) for n in ('temperature', 'topK', 'topP', 'minP', 'seeds'))
    x = torch.where(torch.isnan(x), -math.inf, x)
    rows, vocab = x.shape
    greatest, likeliest = x.max(1, keepdim=True)[0], torch.stack([(x[r] == x[r].max()).nonzero()[0, 0] for r in range(rows)])
    plain = (temperature == 0) | ~torch.isfinite(greatest[:, 0])
    weight = torch.exp((x - greatest) / torch.where(temperature == 0, 1, temperature).unsqueeze(1))
    order = torch.sort(x, dim=-1, descending=True, stable=True)[1]
    sorted_weight = weight.gather(1, order)
    place = torch.arange(vocab, device=GPU).unsqueeze(0)
    keep = place < torch.where(top_k <= 0, vocab, top_k).unsqueeze(1)
    kept = sorted_weight * keep
    before = kept.cumsum(1) - kept
    keep &= (before < top_p.unsqueeze(1) * kept.sum(1, keepdim=True)) | (place == 0)
    keep &= (sorted_weight >= min_p.unsqueeze(1)) | (place == 0)
    allowed = torch.zeros_like(keep).scatter(1, order, keep)
    i = torch.arange(vocab, device=GPU)
    low = 0xFFFFFFFF
    out = torch.empty(rows, dtype=torch.int64, device=GPU)
    for r in range(rows):
        zero = torch.zeros_like(i)
        key = [zero + (int(seeds[r, 0]) & low), zero + (int(seeds[r, 1]) & low)]
        words = philox([16 * (i // 64) + i % 16, zero + (int(seeds[r, 2]) & low), zero, zero], key)
        word = torch.stack(words)[(i // 16) % 4, i]
        u = torch.clamp((word.double() + 0.5) / 2**32, max=1 - 2.0**-24)
        arrival = torch.where(allowed[r], -torch.log1p(-u) / weight[r], math.inf)
        out[r] = likeliest[r] if plain[r] else arrival.argmin()
    return [out]


def embedding(out, ids, table, first):
    ids, table = tensor(ids) - first, tensor(table)
    inside = (ids >= 0) & (ids < table.shape[0])
    return [F.embedding(ids.clamp(0, table.shape[0] - 1), table) * inside.unsqueeze(1)]


def feed(ids, last, sources):
    y, last, sources = tensor(ids), tensor(last), tensor(sources)
    inside = (sources >= 0) & (sources < last.shape[0])
    return [torch.where(inside, last[sources.clamp(0, max(last.shape[0] - 1, 0))], y)]


def add_rms_norm(out, residual, x, w, eps, offset):
    total = rounded(tensor(residual) + tensor(x), residual['dtype'])
    return [rms(total, tensor(w), eps, offset), total]


def layer_norm(out, x, w, bias, eps):
    x = tensor(x)
    return [F.layer_norm(x, (x.shape[-1],), tensor(w), tensor(bias), eps)]


def activate_and_mul(out, x, name):
    a, b = tensor(x).chunk(2, -1)
    return [act(a, name) * b]


def fill(out, value):
    return [torch.full(out['shape'], float(value) if out['dtype'] != 'i32' else int(value), device=GPU, dtype=torch.float64 if out['dtype'] != 'i32' else torch.int64)]


OPS = {
    'linear': lambda out, x, w, bias=None: [F.linear(tensor(x), tensor(w), tensor(bias))],
    'embedding': embedding,
    'gatherRows': lambda out, x, rows: [tensor(x)[tensor(rows)]],
    'feedTokens': feed,
    'rmsNorm': lambda out, x, w, eps, offset: [rms(tensor(x), tensor(w), eps, offset)],
    'addRmsNorm': add_rms_norm,
    'layerNorm': layer_norm,
    'add': lambda out, a, b: [tensor(a) + tensor(b)],
    'scale': lambda out, x, factor: [tensor(x) * factor],
    'softCap': lambda out, x, cap: [cap * torch.tanh(tensor(x) / cap)],
    'activate': lambda out, x, name: [act(tensor(x), name)],
    'activateAndMul': activate_and_mul,
    'copy': lambda out, x: [tensor(x)],
    'fill': fill,
    'rotary': lambda q, k, positions, table, options: [rotate(tensor(t), tensor(positions), tensor(table), options) for t in (q, k)],
    'writeCache': write_cache,
    'pagedAttention': attention,
    'penalize': penalize,
    'addSparse': add_sparse,
    'sample': sample,
    'logProbs': log_probs,
}

# Of one rounding to the output's type, relative to the value; below it sums and probabilities may add a part of the output's size.
STEP = {'f32': 2.0**-21, 'bf16': 2.0**-8, 'f16': 2.0**-11}
SUMS = {
    # Products of half-width floats are exact; their sums are f32. Attention rounds probabilities and 8-bit caches' queries.
    'linear': {'f32': 2e-6, 'bf16': 2e-5, 'f16': 2e-5},
    'pagedAttention': {'f32': 2.0**-9, 'bf16': 2.0**-6, 'f16': 2.0**-9},
}
table, wrong, current = {}, [], ''
for call in recorded['calls']:
    if call['case'] != current:
        current = call['case']
        caches.clear()
    op = call['op']
    expected = OPS[op](*call['args'])
    for theirs, d in zip(expected, call['after'], strict=True):
        ours, dtype = tensor(d), d['dtype']
        row = table.setdefault((op, dtype), [0, 0, 0.0, 0.0])
        row[0] += 1
        row[1] += ours.numel()
        if ours.numel() == 0:
            continue
        theirs = theirs.reshape(ours.shape)
        if dtype == 'i32':
            different = int((ours != theirs).sum())
            row[2] += different
            if different:
                wrong.append(f'{op}: {different} of {ours.numel()} differ: {current}')
            continue
        # An output that is beyond its type is an infinity, here and there.
        theirs = rounded(theirs, dtype) if not torch.isfinite(theirs.to(STORED[dtype])).all() else theirs
        same = (ours == theirs) | (torch.isnan(ours) & torch.isnan(theirs))
        error = torch.where(same, 0.0, (ours - theirs).abs())
        finite = theirs[torch.isfinite(theirs)]
        size = float((finite**2).mean().sqrt()) if finite.numel() else 1.0
        row[2] = max(row[2], float(error.max()) / (size or 1.0))
        slack = SUMS.get(op, {}).get(dtype, 1e-6) * size
        part = float((error / (STEP[dtype] * theirs.abs() * 1.01 + slack + 1e-30)).nan_to_num(nan=math.inf).max())
        row[3] = max(row[3], part)
        if not part <= 1:
            wrong.append(f'{op} {dtype}: {part:.2f} of what is allowed: {current}')

print(f"{recorded['device']}; PyTorch {torch.__version__}, {torch.cuda.get_device_name()}")
print('| op | type | results | numbers | largest error / rms | part of the tolerance |\n|---|---|---|---|---|---|')
for (op, dtype), (calls, numbers, worst, part) in table.items():
    print(f'| {op} | {dtype} | {calls} | {numbers} | ' + (f'{int(worst)} differ | |' if dtype == 'i32' else f'{worst:.1e} | {part:.2f} |'))
print(f'{len(wrong)} results outside the tolerance')
print('\n'.join(wrong[:30]))
sys.exit(1 if wrong else 0)
