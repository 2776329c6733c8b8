// Norms, elementwise ops and the sampler on the CPU: microseconds a call, at the sizes of a model of a billion parameters, the
// call from JavaScript included. JSON lines; the first is the configuration.
//
//   node benchmarks/dist/cpu-ops.js [--threads 0] [--isa auto] [--op sample] [--seconds 0.3] [--no-pin]
import { cpus } from 'node:os'
import { parseArgs } from 'node:util'
import { createCpuDevice, type Isa } from '@aphrodite/kernels-cpu'
import { SPEED_CASES, timeOpCase } from '@aphrodite/testing'

const { values } = parseArgs({
  options: {
    threads: { type: 'string', default: '0' },
    isa: { type: 'string', default: 'auto' },
    op: { type: 'string' },
    seconds: { type: 'string', default: '0.3' },
    'no-pin': { type: 'boolean', default: false },
  },
})
const device = createCpuDevice({ threads: Number(values.threads), isa: values.isa as Isa | 'auto', pin: !values['no-pin'] })
const print = (line: object): void => console.log(JSON.stringify(line))
print({ benchmark: 'cpu-ops', device: device.description, cpu: cpus()[0]?.model, node: process.version, pinned: !values['no-pin'] })
for (const opCase of SPEED_CASES) {
  if (values.op && opCase.op !== values.op) continue
  print({
    op: opCase.op,
    case: opCase.name,
    microseconds: Number((await timeOpCase(opCase, device, Number(values.seconds))).toPrecision(3)),
  })
}
device.close()
