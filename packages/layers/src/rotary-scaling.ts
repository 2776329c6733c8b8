import type { ConfigReader } from './config.ts'

/** What a rotary embedding turns by. Made by `rotaryParameters` or `readRotary`. */
export interface RotaryParameters {
  /** How many of a head's dimensions turn. */
  readonly rotaryDim: number
  /** Rows of the table: the longest sequence, scaling included. */
  readonly maxPositions: number
  /** Radians a position, for each of rotaryDim / 2 pairs. */
  readonly frequencies: Float32Array
  /** Multiplies cosines and sines. */
  readonly attentionFactor: number
  /** Sequences whose prompt is longer than `above` tokens turn by these instead. */
  readonly long?: { readonly above: number; readonly frequencies: Float32Array }
}

/** Plain rotary embeddings: pair i turns by theta^(-2i / rotaryDim) a position. */
export const rotaryParameters = (rotaryDim: number, theta: number, maxPositions: number): RotaryParameters => ({
  rotaryDim,
  maxPositions,
  frequencies: inverse(powers(theta, rotaryDim)),
  attentionFactor: 1,
})

export interface ReadRotaryOptions {
  readonly headDim: number
  /** Where config.json gives none. Default 10,000. */
  readonly theta?: number
  /** Which entry of a `rope_parameters` that has one for each layer type. */
  readonly layerType?: string
}

/**
 * Rotary parameters of config.json in both writings: `rope_theta` and `rope_scaling` (with `rope_type` or `type`), and
 * `rope_parameters`. Each kind is what Hugging Face's `modeling_rope_utils.py` computes, in float32 where it does.
 */
export function readRotary(c: ConfigReader, options: ReadRotaryOptions): RotaryParameters {
  const p = scalingOf(c, options.layerType)
  const theta = p?.has('rope_theta') ? p.number('rope_theta') : c.number('rope_theta', options.theta ?? 10_000)
  if (theta <= 0) throw c.error(`rope_theta should be greater than 0, is ${theta}`)
  const part = c.has('partial_rotary_factor') ? c.number('partial_rotary_factor') : (p?.number('partial_rotary_factor', 1) ?? 1)
  const rotaryDim = Math.trunc(options.headDim * part)
  if (rotaryDim < 2 || rotaryDim % 2 || rotaryDim > options.headDim)
    throw c.error(`partial_rotary_factor ${part} of heads of ${options.headDim} makes ${rotaryDim} rotary dimensions; it should be even`)
  const maxPositions = c.count('max_position_embeddings')
  const type = p ? p.string('rope_type', p.string('type', 'default')) : 'default'
  const scale = Object.hasOwn(SCALINGS, type) ? SCALINGS[type] : undefined
  if (!scale) throw c.error(`rope_type is ${JSON.stringify(type)}; supported are ${Object.keys(SCALINGS).join(', ')}`)
  const plain = rotaryParameters(rotaryDim, theta, maxPositions)
  const parameters = p ? scale({ plain, theta, c, p }) : plain
  if (parameters.maxPositions > MOST_POSITIONS)
    throw c.error(`max_position_embeddings makes ${parameters.maxPositions} positions; at most ${MOST_POSITIONS} are supported`)
  const numbers = [parameters.attentionFactor, ...parameters.frequencies, ...(parameters.long?.frequencies ?? [])]
  if (!numbers.every(Number.isFinite)) throw (p ?? c).error(`its ${type} rotation is by angles that are no finite numbers`)
  return parameters
}

/** A table has a row for each. */
const MOST_POSITIONS = 2 ** 24

/** The object that holds a layer type's parameters, in either writing. */
function scalingOf(c: ConfigReader, layerType: string | undefined): ConfigReader | undefined {
  const p = c.object('rope_parameters')
  if (!p) return c.object('rope_scaling')
  if (layerType !== undefined && p.has(layerType)) return p.object(layerType)
  const nested = Object.keys(p.json).find((key) => typeof p.json[key] === 'object' && p.json[key] !== null && !Array.isArray(p.json[key]))
  if (nested === undefined) return p
  throw p.error(layerType ? `${layerType} is missing` : `it has an entry for ${nested}; this model turns all its layers alike`)
}

interface Scaling {
  readonly plain: RotaryParameters
  readonly theta: number
  readonly c: ConfigReader
  readonly p: ConfigReader
}

const SCALINGS: Readonly<Record<string, (s: Scaling) => RotaryParameters>> = {
  default: ({ plain }) => plain,
  linear,
  dynamic,
  llama3,
  yarn,
  longrope,
  su: longrope,
}

/** Positions divided by the factor. */
function linear({ plain, p }: Scaling): RotaryParameters {
  const factor = factorOf(p)
  return { ...plain, maxPositions: scaled(plain, factor), frequencies: plain.frequencies.map((f) => f / factor) }
}

/**
 * NTK: a greater theta for sequences longer than the original. Its definition follows the length token by token, which a
 * cache of rotated keys cannot; as elsewhere it is taken for the longest sequence, for prompts that start beyond the original.
 */
function dynamic({ plain, theta, p }: Scaling): RotaryParameters {
  const factor = factorOf(p)
  const { rotaryDim: d, maxPositions: original } = plain
  const maxPositions = scaled(plain, factor)
  const stretch = ((factor * maxPositions) / original - (factor - 1)) ** (d / (d - 2))
  return { ...plain, maxPositions, long: { above: original, frequencies: inverse(powers(theta * stretch, d)) } }
}

/** Long wavelengths divided by the factor, short ones kept, those between blended. */
function llama3({ plain, c, p }: Scaling): RotaryParameters {
  const factor = factorOf(p)
  const low = p.number('low_freq_factor')
  const high = p.number('high_freq_factor')
  if (high <= low) throw p.error(`high_freq_factor ${high} should be greater than low_freq_factor ${low}`)
  const original = originalOf(c, p)
  const frequencies = plain.frequencies.map((f) => {
    const wavelength = Math.fround((2 * Math.PI) / f)
    if (wavelength < original / high) return f
    if (wavelength > original / low) return f / factor
    const smooth = Math.fround((original / wavelength - low) / (high - low))
    return Math.fround(((1 - smooth) * f) / factor) + Math.fround(smooth * f)
  })
  return { ...plain, frequencies }
}

/** YaRN: dimensions that turn often are kept, those that turn rarely divided by the factor, a ramp between; and softer scores. */
function yarn(s: Scaling): RotaryParameters {
  const { plain, theta, c, p } = s
  if (p.has('short_factor')) return longrope(s) // the first Phi-3 files call it yarn
  const { rotaryDim: d, maxPositions } = plain
  const original = originalOf(c, p)
  const factor = p.has('factor') ? factorOf(p) : maxPositions / original
  const truncate = p.boolean('truncate', true)
  const dimensionOf = (rotations: number): number => (d * Math.log(original / (rotations * 2 * Math.PI))) / (2 * Math.log(theta))
  const first = dimensionOf(p.number('beta_fast', 32) || 32)
  const last = dimensionOf(p.number('beta_slow', 1) || 1)
  const low = Math.max(truncate ? Math.floor(first) : first, 0)
  const high = Math.min(truncate ? Math.ceil(last) : last, d - 1)
  const width = low === high ? 0.001 : high - low
  const frequencies = powers(theta, d).map((power, i) => {
    const kept = Math.fround(1 - Math.min(Math.max(Math.fround((i - low) / width), 0), 1))
    return Math.fround(Math.fround(1 / Math.fround(factor * power)) * (1 - kept)) + Math.fround(Math.fround(1 / power) * kept)
  })
  const mscale = p.number('mscale', 0)
  const mscaleAll = p.number('mscale_all_dim', 0)
  const soften = (m: number): number => (factor <= 1 ? 1 : 0.1 * m * Math.log(factor) + 1)
  const attentionFactor = p.number('attention_factor', mscale && mscaleAll ? soften(mscale) / soften(mscaleAll) : soften(1))
  return { ...plain, maxPositions: Math.max(maxPositions, Math.floor(original * factor)), frequencies, attentionFactor }
}

/** LongRoPE: a divisor for each pair, one list for prompts up to the original length and one for longer ones. */
function longrope({ plain, theta, c, p }: Scaling): RotaryParameters {
  const { rotaryDim: d, maxPositions } = plain
  const original = originalOf(c, p)
  if (original < 2) throw p.error(`original_max_position_embeddings should be at least 2, is ${original}`)
  const factor = p.number('factor', maxPositions / original)
  const attentionFactor = p.number('attention_factor', factor <= 1 ? 1 : Math.sqrt(1 + Math.log(factor) / Math.log(original)))
  const dividedBy = (key: string): Float32Array => {
    const divisors = p.list(key, 'number')
    if (divisors?.length !== d / 2)
      throw p.error(`${key} should be a list of ${d / 2} numbers${divisors ? `, has ${divisors.length}` : ''}`)
    return powers(theta, d).map((power, i) => 1 / Math.fround(Math.fround(divisors[i]!) * power))
  }
  const long = { above: original, frequencies: dividedBy('long_factor') }
  return { ...plain, frequencies: dividedBy('short_factor'), attentionFactor, ...(maxPositions > original ? { long } : {}) }
}

function factorOf(p: ConfigReader): number {
  const factor = p.number('factor')
  if (factor <= 0) throw p.error(`factor should be greater than 0, is ${factor}`)
  return factor
}

const scaled = ({ maxPositions }: RotaryParameters, factor: number): number => Math.max(1, Math.floor(maxPositions * factor))

/** The length that a model was trained for, before it was stretched: beside the parameters (Phi-3) or among them. */
const originalOf = (c: ConfigReader, p: ConfigReader): number =>
  c.has('original_max_position_embeddings')
    ? c.count('original_max_position_embeddings')
    : p.count('original_max_position_embeddings', c.count('max_position_embeddings'))

/** theta^(2i / d) in float32. */
const powers = (theta: number, d: number): Float32Array => Float32Array.from({ length: d / 2 }, (_, i) => theta ** Math.fround((2 * i) / d))
const inverse = (xs: Float32Array): Float32Array => xs.map((x) => 1 / x)
