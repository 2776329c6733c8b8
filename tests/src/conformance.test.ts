import { ModelRegistry } from '@aphrodite/models'
import { formatReport, verifyModel } from '@aphrodite/testing'
import { expect, test } from 'vitest'
import { FIXTURES, readFixture } from './fixture-cases.ts'

/** One fixture of every architecture of the zoo; the plain one, where there are several. */
const byArchitecture = new Map<string, string>()
for (const name of FIXTURES) {
  const { config, weights } = readFixture(name)
  weights.close()
  const [architecture] = config['architectures'] as [string]
  if (!byArchitecture.has(architecture)) byArchitecture.set(architecture, name)
}

test('every architecture of the zoo has a fixture', () => {
  expect([...byArchitecture.keys()].sort()).toEqual(ModelRegistry.architectures())
})

test.each([...byArchitecture])('%s conforms, with the reference of %s', { timeout: 60_000 }, async (architecture, name) => {
  const { directory, weights } = readFixture(name)
  weights.close()
  const report = await verifyModel(architecture, { reference: directory, assert: false })
  if (process.env['APHRODITE_TEST_ERRORS']) console.log(formatReport(report))
  expect(report.problems).toEqual([])
  expect(report.runs.length).toBeGreaterThan(20)
})
