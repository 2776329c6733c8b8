import { mkdirSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import type { ChatTemplateMessage } from '../src/chat-messages.ts'
import { ChatTemplate, type RenderOptions } from '../src/chat-template.ts'
import { Tokenizer } from '../src/tokenizer.ts'
import { fixture, publishedFolder } from './families.ts'

const user = (content: string): ChatTemplateMessage => ({ role: 'user', content })
const refused = (message: RegExp) => expect.objectContaining({ code: 'CHAT_TEMPLATE', message: expect.stringMatching(message) as string })
const folderWith = (files: Record<string, string>): string => {
  const folder = mkdtempSync(join(tmpdir(), 'chat-template-'))
  mkdirSync(join(folder, 'additional_chat_templates'))
  for (const [name, text] of Object.entries(files)) writeFileSync(join(folder, name), text)
  return folder
}

describe('a chat of the demo model', () => {
  const tokenizer = Tokenizer.fromFolder(fixture('chat'))
  const template = ChatTemplate.fromFolder(fixture('chat'))!
  const { chats } = JSON.parse(readFileSync(fixture('chat/reference.json'), 'utf8')) as {
    chats: { messages: ChatTemplateMessage[]; tools: unknown[] | null; prompt_ids: number[] }[]
  }

  it.each(chats)('%# becomes the ids that Hugging Face gives', ({ messages, tools, prompt_ids }) => {
    expect(tokenizer.encode(template.render(messages, { tools }), { addSpecialTokens: false })).toEqual(prompt_ids)
  })
})

interface Rendered extends Omit<RenderOptions, 'chatTemplate'> {
  name: string
  package: string | null
  template: string | null
  messages: ChatTemplateMessage[]
  variables: Record<string, unknown>
  expected: string | null
}

describe('templates as transformers renders them', () => {
  const cases = JSON.parse(readFileSync(fixture('chat/rendered.json'), 'utf8')) as Rendered[]
  it.each(cases)('$name', ({ package: name, template, variables, messages, expected, ...options }) => {
    const made = name ? ChatTemplate.fromFolder(publishedFolder(name))! : new ChatTemplate(template!, variables)
    const { tools, documents, kwargs, addGenerationPrompt, continueFinalMessage } = options as RenderOptions
    const render = () =>
      made.render(messages, {
        ...(tools && { tools }),
        ...(documents && { documents }),
        ...(kwargs && { kwargs }),
        ...(addGenerationPrompt !== undefined && { addGenerationPrompt }),
        ...(continueFinalMessage !== undefined && { continueFinalMessage }),
      })
    if (expected === null) expect(render).toThrow(refused(/./))
    else expect(render()).toBe(expected)
  })
})

describe('where a template comes from', () => {
  const config = JSON.stringify({ bos_token: { content: '<s>' }, chat_template: 'config {{ bos_token }}' })

  it('is the .jinja file, then the .json file, then the configuration', () => {
    const files = { 'tokenizer_config.json': config, 'chat_template.json': '{"chat_template": "json"}', 'chat_template.jinja': 'jinja' }
    expect(ChatTemplate.fromFolder(folderWith(files))!.render([user('x')])).toBe('jinja')
    const { 'chat_template.jinja': _, ...rest } = files
    expect(ChatTemplate.fromFolder(folderWith(rest))!.render([user('x')])).toBe('json')
    expect(ChatTemplate.fromFolder(folderWith({ 'tokenizer_config.json': config }))!.render([user('x')])).toBe('config <s>')
    expect(ChatTemplate.fromFolder(folderWith({}))).toBeNull()
  })

  it('is chosen among several by name, tools and documents', () => {
    const chat_template = ['default', 'tool_use', 'rag'].map((name) => ({ name, template: name }))
    const template = ChatTemplate.fromFolder(folderWith({ 'tokenizer_config.json': JSON.stringify({ chat_template }) }))!
    expect(template.names).toEqual(['default', 'tool_use', 'rag'])
    expect(template.render([user('x')])).toBe('default')
    expect(template.render([user('x')], { tools: [] })).toBe('default')
    expect(template.render([user('x')], { tools: [{}] })).toBe('tool_use')
    expect(template.render([user('x')], { documents: [{}] })).toBe('rag')
    expect(template.render([user('x')], { chatTemplate: 'rag' })).toBe('rag')
    expect(() => template.render([user('x')], { chatTemplate: 'rug' })).toThrow(refused(/no chat template named "rug".*Did you mean "rag"/))
    const folder = folderWith({ 'chat_template.jinja': 'one', 'additional_chat_templates/tool_use.jinja': 'two' })
    expect(ChatTemplate.fromFolder(folder)!.render([user('x')], { tools: [{}] })).toBe('two')
  })

  it('is the one given: the text, a file, or a name', () => {
    const folder = folderWith({ 'chat_template.jinja': 'own', 'other.jinja': 'other', 'additional_chat_templates/rag.jinja': 'rag' })
    const given = (template: string) => ChatTemplate.fromFolder(folder, { template })!.render([user('x')])
    expect(given('{{ messages[0].content }}!')).toBe('x!')
    expect(given(join(folder, 'other.jinja'))).toBe('other')
    expect(given('rag')).toBe('rag')
    expect(() => given(join(folder, 'none.jinja'))).toThrow(refused(/neither a template nor a file/))
  })
})

describe('messages', () => {
  const plain = new ChatTemplate('{% for m in messages %}[{{ m.content }}]{% endfor %}')
  const parts: ChatTemplateMessage = {
    role: 'user',
    content: [
      { type: 'text', text: 'a' },
      { type: 'text', text: 'b' },
    ],
  }

  it('have their parts joined where the template wants text', () => {
    expect(plain.contentFormat).toBe('string')
    expect(plain.render([parts])).toBe('[a\nb]')
    expect(() => plain.render([{ role: 'user', content: [{ type: 'image_url' }] }])).toThrow(refused(/part of type "image_url".*only text/))
  })

  it.each([
    "{% for m in messages %}{% for c in m['content'] %}<{{ c.text }}>{% endfor %}{% endfor %}",
    '{% for m in messages %}{% set content = m.content %}{% for c in content %}<{{ c.text }}>{% endfor %}{% endfor %}',
    '{%- macro show(content) -%}{% for c in content %}<{{ c.text }}>{% endfor %}{%- endmacro -%}{% for m in messages %}{{ show(m.content) }}{% endfor %}',
  ])('keep their parts where the template loops over them: %s', (source) => {
    const template = new ChatTemplate(source)
    expect(template.contentFormat).toBe('openai')
    expect(template.render([parts, user('c')])).toBe('<a><b><c>')
  })

  it('stay text where the template takes both', () => {
    const template = new ChatTemplate(
      '{% for m in messages %}{% if m.content is string %}{{ m.content|upper }}{% else %}{% for c in m.content %}{{ c.text }}{% endfor %}{% endif %}{% endfor %}',
    )
    expect(template.render([user('x'), parts])).toBe('Xab')
  })

  it('have the arguments of tool calls as objects', () => {
    const template = new ChatTemplate('{{ messages[0].tool_calls[0].function.arguments | tojson }}')
    const call = (text: string): ChatTemplateMessage => ({ role: 'assistant', tool_calls: [{ function: { name: 'f', arguments: text } }] })
    expect(template.render([call('{"a":1,"b":"é"}')])).toBe('{"a": 1, "b": "é"}')
    expect(template.render([call('')])).toBe('{}')
    expect(template.render([call('no json')])).toBe('"no json"')
  })

  it('without content are none, fields that are undefined do not exist', () => {
    const template = new ChatTemplate(
      "{{ 'none' if messages[0].content is none else 'some' }} {{ 'yes' if messages[0].name is defined else 'no' }}",
    )
    expect(template.render([{ role: 'user', content: null, name: undefined } as unknown as ChatTemplateMessage])).toBe('none no')
  })

  it('must be there and have roles', () => {
    expect(() => plain.render([])).toThrow(refused(/at least one message/))
    expect(() => plain.render([{ content: 'x' } as ChatTemplateMessage])).toThrow(refused(/messages\[0\] must be an object with a role/))
  })
})

describe('a template', () => {
  it('refuses through raise_exception', () => {
    const template = new ChatTemplate(
      "{% if messages[0].role != 'user' %}{{ raise_exception('The first message must be of the user') }}{% endif %}",
    )
    expect(() => template.render([{ role: 'tool', content: 'x' }])).toThrow(
      refused(/refuses these messages: The first message must be of the user/),
    )
  })

  it('that does not parse or fails names the problem', () => {
    expect(() => new ChatTemplate('{% if x %}')).toThrow(refused(/does not parse/))
    expect(() => new ChatTemplate('{{ messages[0].content.nothing() }}').render([user('x')])).toThrow(refused(/failed/))
    expect(() => new ChatTemplate('{% for i in range(10000000000) %}{% endfor %}').render([user('x')])).toThrow(refused(/at most 100000/))
    expect(() => new ChatTemplate({})).toThrow(refused(/empty list/))
  })

  it('has the date of today', () => {
    const now = new Date()
    const year = new ChatTemplate('{{ strftime_now("%Y|%d %b %Y|%A|%-d") }}').render([user('x')]).split('|')
    expect(year[0]).toBe(String(now.getFullYear()))
    expect(year[1]).toBe(`${String(now.getDate()).padStart(2, '0')} ${now.toLocaleString('en', { month: 'short' })} ${now.getFullYear()}`)
    expect(year[2]).toBe(now.toLocaleString('en', { weekday: 'long' }))
    expect(year[3]).toBe(String(now.getDate()))
  })

  it('cannot have its own variables replaced', () => {
    expect(() => new ChatTemplate('x').render([user('x')], { kwargs: { messages: [] } })).toThrow(refused(/cannot be named messages/))
  })

  it('continues a message or begins one, not both', () => {
    const template = new ChatTemplate(
      '{% for m in messages %}<{{ m.content | trim }}>{% endfor %}{% if add_generation_prompt %}go{% endif %}',
    )
    const messages = [user('hi'), { role: 'assistant', content: 'so far ' }]
    expect(template.render(messages)).toBe('<hi><so far>go')
    expect(template.render(messages, { continueFinalMessage: true })).toBe('<hi><so far')
    expect(() => template.render(messages, { continueFinalMessage: true, addGenerationPrompt: true })).toThrow(
      refused(/exclude each other/),
    )
    expect(() => template.render([{ role: 'assistant', content: null }], { continueFinalMessage: true })).toThrow(
      refused(/no text to continue/),
    )
  })

  it('survives data nested too deeply', () => {
    let deep: unknown = 1
    for (let i = 0; i < 20_000; i++) deep = [deep]
    expect(() => new ChatTemplate('{{ tools }}').render([user('x')], { tools: [deep] })).toThrow(refused(/failed/))
  })
})
