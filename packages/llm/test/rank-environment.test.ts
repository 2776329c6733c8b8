import { describe, expect, test } from 'vitest'
import { rankFromEnvironment } from '../src/ranks/environment.ts'

const SECRET = { APHRODITE_SECRET: 'only the ranks know' }

describe('a launcher says which rank this is', () => {
  test.each<[string, Record<string, string>, object]>([
    [
      'torchrun',
      { RANK: '3', WORLD_SIZE: '4', LOCAL_RANK: '1', MASTER_ADDR: 'node1', MASTER_PORT: '29500', ...SECRET },
      { rank: 3, size: 4, host: 'node1', port: 29500 },
    ],
    [
      'mpirun on one machine',
      { OMPI_COMM_WORLD_RANK: '1', OMPI_COMM_WORLD_SIZE: '2', OMPI_COMM_WORLD_LOCAL_SIZE: '2', PMIX_NAMESPACE: '1772158977' },
      { rank: 1, size: 2, host: '127.0.0.1' },
    ],
    [
      'mpirun on several',
      { OMPI_COMM_WORLD_RANK: '1', OMPI_COMM_WORLD_SIZE: '4', OMPI_COMM_WORLD_LOCAL_SIZE: '2', MASTER_ADDR: '10.0.0.7', ...SECRET },
      { rank: 1, size: 4, host: '10.0.0.7' },
    ],
    [
      'mpiexec of MPICH and Intel',
      { PMI_RANK: '0', PMI_SIZE: '2', MPI_LOCALNRANKS: '2', MASTER_PORT: '4000' },
      { rank: 0, size: 2, host: '127.0.0.1', port: 4000 },
    ],
    [
      'srun',
      {
        SLURM_PROCID: '5',
        SLURM_STEP_NUM_TASKS: '8',
        SLURM_STEP_ID: '0',
        SLURM_JOB_ID: '77',
        SLURM_STEP_NODELIST: 'gpu[03-04,9],login',
        ...SECRET,
      },
      { rank: 5, size: 8, host: 'gpu03' },
    ],
    [
      'a LeaderWorkerSet',
      { LWS_WORKER_INDEX: '1', LWS_GROUP_SIZE: '2', LWS_LEADER_ADDRESS: 'model-0.model.default', ...SECRET },
      { rank: 1, size: 2, host: 'model-0.model.default' },
    ],
    [
      'mpirun inside a batch job',
      {
        OMPI_COMM_WORLD_RANK: '1',
        OMPI_COMM_WORLD_SIZE: '2',
        OMPI_COMM_WORLD_LOCAL_SIZE: '2',
        SLURM_PROCID: '0',
        SLURM_STEP_NUM_TASKS: '4',
        SLURM_STEP_ID: '1',
      },
      { rank: 1, size: 2, host: '127.0.0.1' },
    ],
  ])('%s', (_, env, expected) => expect(rankFromEnvironment(env)).toMatchObject(expected))

  test('the port of a job is the same on each of its ranks, and another one for another job', () => {
    const port = (rank: string, job: string) =>
      rankFromEnvironment({ OMPI_COMM_WORLD_RANK: rank, OMPI_COMM_WORLD_SIZE: '2', OMPI_COMM_WORLD_LOCAL_SIZE: '2', PMIX_NAMESPACE: job })!
        .port
    expect(port('0', 'a')).toBe(port('1', 'a'))
    expect(port('0', 'a')).not.toBe(port('0', 'b'))
    expect(port('0', 'a')).toBeGreaterThanOrEqual(20_000)
  })
})

test.each<[string, Record<string, string>]>([
  ['nobody has started it', {}],
  ['it is alone', { RANK: '0', WORLD_SIZE: '1', MASTER_ADDR: 'a', MASTER_PORT: '1' }],
  ['a batch script is no rank', { SLURM_PROCID: '0', SLURM_NTASKS: '4', SLURM_JOB_ID: '77' }],
  ['RANK alone can be anything', { RANK: '0', WORLD_SIZE: '4' }],
])('none where %s', (_, env) => expect(rankFromEnvironment(env)).toBeUndefined())

test.each<[string, Record<string, string>, RegExp]>([
  [
    'no secret for another machine',
    { RANK: '0', WORLD_SIZE: '2', MASTER_ADDR: '10.0.0.1', MASTER_PORT: '29500' },
    /rank 0 is at 10\.0\.0\.1, which others can reach: set APHRODITE_SECRET/,
  ],
  [
    'rank 0 not known',
    { OMPI_COMM_WORLD_RANK: '1', OMPI_COMM_WORLD_SIZE: '4', OMPI_COMM_WORLD_LOCAL_SIZE: '2' },
    /none knows rank 0's: add "-x MASTER_ADDR=HOST/,
  ],
  [
    'a rank that is none',
    { RANK: 'x', WORLD_SIZE: '2', MASTER_ADDR: 'localhost', MASTER_PORT: '1' },
    /RANK should be a whole number, is "x"/,
  ],
  [
    'a rank beyond the last',
    { RANK: '2', WORLD_SIZE: '2', MASTER_ADDR: 'localhost', MASTER_PORT: '1' },
    /rank 2 of 2: ranks go from 0 to 1/,
  ],
])('refused: %s', (_, env, message) => expect(() => rankFromEnvironment(env)).toThrow(message))
