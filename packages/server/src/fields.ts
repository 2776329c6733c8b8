import { didYouMean } from '@aphrodite/tensor'
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { TObject } from 'typebox'
import { ApiError, unsupported } from './api-error.ts'

/**
 * Fields of OpenAI's API or of other servers that would change the answer, and that this server does not have. They are
 * refused by name, whatever `unknownFields` says: an answer that ignores one of them is a wrong answer.
 */
const REFUSED: Readonly<Record<string, string>> = {
  functions: 'Use tools.',
  function_call: 'Use tools and tool_choice.',
  modalities: 'Only text comes out.',
  audio: 'Only text comes out.',
  prediction: '',
  reasoning_effort: 'Templates that know it take it from chat_template_kwargs.',
  verbosity: '',
  web_search_options: '',
  structured_outputs: '',
  guided_json: '',
  guided_regex: '',
  guided_choice: '',
  guided_grammar: '',
  grammar: '',
  json_schema: '',
  structural_tag: '',
  use_beam_search: '',
  length_penalty: '',
  early_stopping: '',
  logits_processors: '',
  truncate_prompt_tokens: 'Cut the prompt yourself; /tokenize counts.',
  allowed_token_ids: '',
  bad_words: '',
  documents: 'Templates that know them take them from chat_template_kwargs.',
  mm_processor_kwargs: '',
  prompt_embeds: '',
  vllm_xargs: '',
  kv_transfer_params: '',
}

/** Fields that say how an answer is to be written down and that change no token of it: ignored, also where unknown ones are refused. */
const IGNORED: ReadonlySet<string> = new Set(['request_id', 'return_token_offsets', 'spaces_between_special_tokens'])

/**
 * Before validation: `null` becomes "not given", as OpenAI's clients mean it, and every field that the schema does not have
 * is refused, or ignored and named in the header `x-ignored-fields`.
 */
export function checkFields(schema: TObject, unknownFields: 'error' | 'ignore') {
  const known: ReadonlySet<string> = new Set(Object.keys(schema.properties))
  return async (request: FastifyRequest, reply: FastifyReply): Promise<void> => {
    const body = request.body
    if (typeof body !== 'object' || body === null || Array.isArray(body)) {
      throw new ApiError(400, 'invalid_type', 'The body should be a JSON object.')
    }
    const fields = body as Record<string, unknown>
    const ignored: string[] = []
    for (const key in fields) {
      if (fields[key] === null || fields[key] === undefined) delete fields[key]
      else if (known.has(key)) continue
      else if (Object.hasOwn(REFUSED, key)) throw unsupported(key, `${key} is not supported yet. ${REFUSED[key]}`.trimEnd())
      else if (unknownFields === 'ignore' || IGNORED.has(key)) {
        ignored.push(key)
        delete fields[key]
      } else {
        const name = JSON.stringify(key.slice(0, 100))
        throw new ApiError(400, 'unknown_parameter', `There is no field ${name}.${didYouMean(key, known)}`, { param: key.slice(0, 100) })
      }
    }
    if (ignored.length > 0) {
      // A header holds neither line breaks nor everything a stranger may send.
      reply.header(
        'x-ignored-fields',
        ignored
          .slice(0, 20)
          .map((key) => headerSafe(key))
          .join(', '),
      )
      request.log.warn({ fields: ignored.slice(0, 20).map((key) => key.slice(0, 100)) }, 'fields ignored')
    }
  }
}

/** A name as it may stand in a header; halves of characters, which cannot be encoded, are replaced. */
const headerSafe = (key: string): string => encodeURIComponent(Buffer.from(key.slice(0, 100)).toString())
