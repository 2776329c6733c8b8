import { AphroditeError, didYouMean } from '@aphrodite/tensor'
import { Environment, Interpreter, Template } from '@huggingface/jinja'
import { type ChatTemplateMessage, templateMessages, withoutUndefined } from './chat-messages.ts'
import { readTokenizerConfig } from './config.ts'
import { type ContentFormat, type ContentReading, contentReading } from './content-format.ts'
import { continuedText, markFinalMessage } from './continue-message.ts'
import { tokenizerError } from './errors.ts'
import { readJson } from './folder.ts'
import { strftime } from './strftime.ts'
import { isTemplate, readTemplates, templateVariables } from './template-files.ts'

/** How many templates given with requests stay compiled. */
const COMPILED = 16

export interface RenderOptions {
  /** Tool definitions as JSON schemas. */
  readonly tools?: readonly unknown[] | null
  /** Documents to answer from, `{ title, text }`. */
  readonly documents?: readonly unknown[] | null
  /** Ends with the beginning of an answer. Default: true, unless a message is continued. */
  readonly addGenerationPrompt?: boolean
  /** Ends within the last message, so that the model goes on with it. Default: false. */
  readonly continueFinalMessage?: boolean
  /** Further variables, such as `enable_thinking`. */
  readonly kwargs?: Readonly<Record<string, unknown>>
  /**
   * The name of one of the model's templates, or another template. A template is a program: take one from outside
   * only from people you trust, as it can run for ever.
   */
  readonly chatTemplate?: string
}

interface Compiled {
  readonly template: Template
  readonly reading: ContentReading
}

/** Turns messages into a prompt with the model's Jinja template, as transformers' `apply_chat_template` does. */
export class ChatTemplate {
  readonly #named: ReadonlyMap<string, Compiled>
  readonly #variables: Readonly<Record<string, unknown>>
  readonly #given = new Map<string, Compiled>()

  /**
   * The chat template of a model's folder, null when it has none.
   * @param options.template instead: a template, the path of one, or the name of one of the model's to make the default
   * @throws CHAT_TEMPLATE it does not parse, or cannot be read; BAD_TOKENIZER tokenizer_config.json is no JSON
   */
  static fromFolder(folder: string, options: { readonly template?: string } = {}): ChatTemplate | null {
    const config = readTokenizerConfig(readJson(folder, 'tokenizer_config.json'), readJson(folder, 'special_tokens_map.json'))
    const sources = readTemplates(folder, config, options.template)
    return sources === undefined ? null : new ChatTemplate(sources, templateVariables(config))
  }

  /**
   * @param sources the template, or several by name (`default`, `tool_use`, `rag`)
   * @param variables what templates may use besides the messages: the special tokens
   * @throws CHAT_TEMPLATE it does not parse
   */
  constructor(sources: string | Readonly<Record<string, string>>, variables: Readonly<Record<string, unknown>> = {}) {
    const byName = typeof sources === 'string' ? { default: sources } : sources
    this.#named = new Map(Object.entries(byName).map(([name, source]) => [name, compile(source, name)]))
    if (this.#named.size === 0)
      throw tokenizerError('CHAT_TEMPLATE', 'The model has an empty list of chat templates. Give one with the option chatTemplate.')
    this.#variables = variables
  }

  get names(): readonly string[] {
    return [...this.#named.keys()]
  }

  /** How the default template reads a message's content. */
  get contentFormat(): ContentFormat {
    return this.#choose({}).reading.format
  }

  /**
   * The prompt of a conversation. It has the model's special tokens in it: encode it with `addSpecialTokens: false`.
   * @throws CHAT_TEMPLATE the template refuses the messages, or fails
   */
  render(messages: readonly ChatTemplateMessage[], options: RenderOptions = {}): string {
    const { template, reading } = this.#choose(options)
    if (!Array.isArray(messages) || messages.length === 0)
      throw tokenizerError('CHAT_TEMPLATE', 'messages must be a list of at least one message.')
    const continued = options.continueFinalMessage ?? false
    if (continued && options.addGenerationPrompt === true)
      throw tokenizerError(
        'CHAT_TEMPLATE',
        'continueFinalMessage and addGenerationPrompt exclude each other: a message goes on, or a new one begins.',
      )
    const kwargs = options.kwargs ?? {}
    const taken = Object.keys(kwargs).find((name) => RESERVED.has(name))
    if (taken !== undefined)
      throw tokenizerError('CHAT_TEMPLATE', `A further variable of the chat template cannot be named ${taken}: that is set already.`)
    let final = ''
    const text = run(template, () => {
      const prepared = templateMessages(messages, reading)
      if (continued) final = markFinalMessage(prepared)
      return {
        ...this.#variables,
        ...(withoutUndefined(kwargs) as Record<string, unknown>),
        messages: prepared,
        tools: options.tools && options.tools.length > 0 ? withoutUndefined(options.tools) : null,
        documents: options.documents ? withoutUndefined(options.documents) : null,
        add_generation_prompt: options.addGenerationPrompt ?? !continued,
      }
    })
    return continued ? continuedText(text, final) : text
  }

  #choose(options: Pick<RenderOptions, 'chatTemplate' | 'tools' | 'documents'>): Compiled {
    const { chatTemplate } = options
    if (chatTemplate !== undefined) return this.#named.get(chatTemplate) ?? this.#compileGiven(chatTemplate)
    const withTools = options.tools && options.tools.length > 0 ? this.#named.get('tool_use') : undefined
    const withDocuments = options.documents && options.documents.length > 0 ? this.#named.get('rag') : undefined
    const only = this.#named.size === 1 ? [...this.#named.values()][0] : undefined
    const found = withTools ?? withDocuments ?? this.#named.get('default') ?? only
    if (!found)
      throw tokenizerError(
        'CHAT_TEMPLATE',
        `The model has several chat templates and none is the default: ${this.names.join(', ')}. Name one with chatTemplate.`,
      )
    return found
  }

  #compileGiven(source: string): Compiled {
    const known = this.#given.get(source)
    if (known) return known
    if (!isTemplate(source))
      throw tokenizerError(
        'CHAT_TEMPLATE',
        `There is no chat template named ${JSON.stringify(source.slice(0, 80))}; the model has ${this.names.join(', ')}.${didYouMean(source, this.names)}`,
      )
    const compiled = compile(source, 'given with the request')
    if (this.#given.size >= COMPILED) this.#given.delete(this.#given.keys().next().value!)
    this.#given.set(source, compiled)
    return compiled
  }
}

function compile(source: string, name: string): Compiled {
  try {
    // Marks of training data that change nothing in the text.
    const template = new Template(source.replace(/\{%-?\s*(?:end)?generation\s*-?%\}/g, blankTag))
    return { template, reading: contentReading(template.parsed) }
  } catch (error) {
    throw tokenizerError('CHAT_TEMPLATE', `The chat template (${name}) does not parse: ${(error as Error).message}`, { cause: error })
  }
}

/** A tag that does nothing, with the same control of white space. */
const blankTag = (tag: string): string => `{%${tag.startsWith('{%-') ? '-' : ''} if true ${'%}'}{%endif ${tag.endsWith('-%}') ? '-' : ''}%}`

/** What a template says through `raise_exception`. */
class Refusal extends Error {}

/** Names that templates find besides the variables. Python's sandbox ends long ranges likewise. */
const GLOBALS: Readonly<Record<string, unknown>> = Object.freeze({
  true: true,
  True: true,
  false: false,
  False: false,
  none: null,
  None: null,
  range: (start: number, stop?: number, step = 1): number[] => {
    const [from, to] = stop === undefined ? [0, start] : [start, stop]
    const count = Math.max(0, Math.ceil((to - from) / step))
    if (!(count <= LONGEST_RANGE)) throw new Error(`range() of ${count} numbers; at most ${LONGEST_RANGE} are allowed`)
    return Array.from({ length: count }, (_, i) => from + i * step)
  },
  strftime_now: (format: string) => strftime(new Date(), format),
  raise_exception: (message: unknown) => {
    throw new Refusal(String(message))
  },
})

const LONGEST_RANGE = 100_000

const RESERVED: ReadonlySet<string> = new Set([
  ...Object.keys(GLOBALS),
  'namespace',
  'messages',
  'tools',
  'documents',
  'add_generation_prompt',
])

function run(template: Template, variables: () => Record<string, unknown>): string {
  try {
    const environment = new Environment()
    for (const [name, value] of Object.entries(GLOBALS)) environment.set(name, value)
    for (const [name, value] of Object.entries(variables())) environment.set(name, value)
    return String((new Interpreter(environment).run(template.parsed) as { value: unknown }).value)
  } catch (error) {
    if (error instanceof AphroditeError) throw error
    const message = (error as Error).message
    throw tokenizerError(
      'CHAT_TEMPLATE',
      error instanceof Refusal ? `The chat template refuses these messages: ${message}` : `The chat template failed: ${message}`,
      { cause: error },
    )
  }
}
