import { Type } from 'typebox'
import { Nullable } from './answer.ts'

export const ModelSchema = Type.Object(
  {
    id: Type.String(),
    object: Type.Literal('model'),
    created: Type.Integer({ description: 'When the server started, in seconds since 1970.' }),
    owned_by: Type.String(),
    root: Type.String({ description: 'The model that this is a name of.' }),
    parent: Nullable(Type.String()),
    max_model_len: Type.Integer({ description: 'Tokens of prompt and answer together.' }),
  },
  { title: 'Model' },
)
export type Model = Type.Static<typeof ModelSchema>
export const ModelListSchema = Type.Object({ object: Type.Literal('list'), data: Type.Array(ModelSchema) }, { title: 'ModelList' })
