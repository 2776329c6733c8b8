import { createHash } from 'node:crypto'
import { llmError } from '../errors.ts'
import { checkPlace, type RankPlace } from './place.ts'

type Environment = Readonly<Record<string, string | undefined>>

/** How a launcher tells a process which rank it is. Names of variables; of several, the first that is set. */
interface Launcher {
  readonly name: string
  readonly rank: readonly string[]
  readonly size: readonly string[]
  /** Set in every process of one start, and in no other: a port is made of it where nobody says one. */
  readonly job: readonly string[]
  /** Variables that have to be there too, since others use the same names. */
  readonly needs?: readonly string[]
  /** Where rank 0 is, if the launcher says so. */
  readonly host?: (env: Environment) => string | undefined
  /** How many of the ranks are on this machine. All: then rank 0 is here. */
  readonly localSize?: readonly string[]
  /** How to say where rank 0 is. */
  readonly hint: string
}

/** In the order in which they are asked: who is started by another of these comes before it. */
const LAUNCHERS: readonly Launcher[] = [
  {
    name: 'torchrun',
    rank: ['RANK'],
    size: ['WORLD_SIZE'],
    job: [],
    needs: ['MASTER_ADDR', 'MASTER_PORT'],
    hint: 'set MASTER_ADDR and MASTER_PORT',
  },
  {
    name: 'mpirun (Open MPI)',
    rank: ['OMPI_COMM_WORLD_RANK'],
    size: ['OMPI_COMM_WORLD_SIZE'],
    localSize: ['OMPI_COMM_WORLD_LOCAL_SIZE'],
    job: ['PMIX_NAMESPACE', 'OMPI_MCA_ess_base_jobid', 'OMPI_MCA_orte_ess_jobid'],
    hint: 'add "-x MASTER_ADDR=HOST -x APHRODITE_SECRET" to mpirun',
  },
  {
    name: 'mpiexec (Hydra)',
    rank: ['PMI_RANK'],
    size: ['PMI_SIZE'],
    localSize: ['MPI_LOCALNRANKS'],
    job: ['PMI_PORT'],
    needs: ['MPI_LOCALNRANKS'],
    hint: 'add "-genv MASTER_ADDR HOST -genv APHRODITE_SECRET …" to mpiexec',
  },
  {
    // SLURM_STEP_NUM_TASKS, and not SLURM_NTASKS, which a batch script has too: nobody but srun starts ranks.
    name: 'srun',
    rank: ['SLURM_PROCID'],
    size: ['SLURM_STEP_NUM_TASKS'],
    job: ['SLURM_JOB_ID'],
    needs: ['SLURM_STEP_ID'],
    host: (env) => firstHost(env['SLURM_STEP_NODELIST'] ?? env['SLURM_NODELIST'] ?? ''),
    hint: 'set MASTER_ADDR before srun',
  },
  {
    name: 'LeaderWorkerSet',
    rank: ['LWS_WORKER_INDEX'],
    size: ['LWS_GROUP_SIZE'],
    job: ['LWS_LEADER_ADDRESS'],
    host: (env) => env['LWS_LEADER_ADDRESS'],
    hint: 'set MASTER_ADDR',
  },
]

/** Ports that are made of a job's name: above those that services have, below those that systems hand out. */
const [FIRST_PORT, PORTS] = [20_000, 10_000]

/**
 * What a launcher (mpirun, srun, torchrun, a LeaderWorkerSet) says of this process; undefined where none has started it, or it
 * started this one alone. MASTER_ADDR and MASTER_PORT say where rank 0 listens, before what the launcher itself may say;
 * APHRODITE_SECRET what all ranks know. Throws BAD_RANK.
 */
export function rankFromEnvironment(env: Environment): RankPlace | undefined {
  const first = (names: readonly string[]): string | undefined => names.map((n) => env[n]).find((v) => v !== undefined && v !== '')
  const launcher = LAUNCHERS.find(
    (l) => first(l.rank) !== undefined && first(l.size) !== undefined && (l.needs ?? []).every((n) => first([n]) !== undefined),
  )
  if (!launcher) return undefined
  const number = (names: readonly string[]): number => {
    const text = first(names)!
    if (/^\d{1,6}$/.test(text)) return Number(text)
    throw llmError('BAD_RANK', `${names.find((n) => env[n] === text)} should be a whole number, is "${text.slice(0, 40)}"`)
  }
  const [rank, size] = [number(launcher.rank), number(launcher.size)]
  if (size === 1) return undefined
  const allHere = launcher.localSize && first(launcher.localSize) !== undefined && number(launcher.localSize) === size
  const host = first(['MASTER_ADDR']) ?? launcher.host?.(env) ?? (allHere ? '127.0.0.1' : undefined)
  if (host === undefined)
    throw llmError('BAD_RANK', `${launcher.name} has started ${size} ranks on several machines, and none knows rank 0's: ${launcher.hint}.`)
  const port = first(['MASTER_PORT']) === undefined ? portOf(`${launcher.name} ${first(launcher.job) ?? ''}`) : number(['MASTER_PORT'])
  return checkPlace({ rank, size, host, port, secret: env['APHRODITE_SECRET'] ?? '' })
}

const portOf = (job: string): number => FIRST_PORT + (createHash('sha256').update(job).digest().readUInt32LE(0) % PORTS)

/** `node[03-04,7],login` → `node03`. */
function firstHost(list: string): string | undefined {
  const [, head, ranges] = /^([^,[\]]+)(?:\[([^\]]*)\])?/.exec(list) ?? []
  if (head === undefined) return undefined
  return head + (ranges === undefined ? '' : ranges.split(/[-,]/)[0])
}
