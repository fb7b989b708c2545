/** What the gateway answers: the shapes of its OpenAPI document, as far as the page uses them. */

export interface Page<Item> {
  items: Item[];
  total: number;
  next: string | null;
}

export type Outcome = "pending" | "done" | "skipped" | "failed";

export type JobStatus = "requested" | "processing" | "complete" | "partial";

export interface StageProgress {
  stage: string;
  outcome: Outcome;
  percent: number | null;
  step: string;
}

export interface JobSummary {
  job_id: string;
  status: JobStatus;
  percent: number;
  stages: StageProgress[];
}

export interface Series {
  series_instance_uid: string;
  study_instance_uid: string;
  project: string;
  modality: string;
  patient_name: string;
  patient_id: string;
  study_date: string;
  study_description: string;
  series_description: string;
  instances: number;
  revisions: number;
  first_seen: string;
  preview_url: string | null;
  job: JobSummary | null;
}

export interface SeriesJob {
  job_id: string;
  revision: number;
  status: JobStatus;
}

export interface SeriesDetail extends Series {
  jobs: SeriesJob[];
}

export interface Stage extends StageProgress {
  reason: string;
  error_class: string;
  attempts: number;
  replays: number;
  seconds: number | null;
  started: string | null;
  finished: string | null;
  warnings: string[];
}

export interface Artefact {
  name: string;
  media_type: string;
  size: number;
  sha256: string;
  url: string;
}

export interface Segment {
  number: number;
  name: string;
  label: string;
  colour: string;
  opacity: number;
  volume_ml: number | null;
  mean_hu: number | null;
  meshes: Record<string, string>;
}

export interface Job {
  job_id: string;
  series_instance_uid: string;
  study_instance_uid: string;
  revision: number;
  status: JobStatus;
  superseded: boolean;
  percent: number;
  modality: string;
  instances: number;
  plan: { model: string; organ: string; quality: string };
  stages: Stage[];
  artefacts: Artefact[];
  segments: Segment[];
  archive_url: string | null;
  volume_url: string | null;
  preview_url: string | null;
}

export interface UploadPart {
  number: number;
  start: number;
  length: number;
  url: string;
}

export interface UploadFile {
  number: number;
  size: number;
  done: boolean;
  received: number;
  put: { url: string; headers: Record<string, string> } | null;
  parts: UploadPart[] | null;
}

export interface Refused {
  number: number | null;
  reason: string;
  detail: string;
}

export interface UploadState {
  upload_id: string;
  state: "open" | "complete" | "aborted";
  files: UploadFile[];
  files_total: number;
  objects: { expected: number; settled: number; members: number; refused_total: number; refused: Refused[] } | null;
  series_total: number;
  series: { series_instance_uid: string; job: JobSummary | null }[];
}

export interface Letter {
  handle: string;
  queue: string;
  service: string;
  dead_at: string | null;
  error_class: string;
  reason: string;
  attempts: number;
  replays: number;
  series_instance_uid: string;
  job_id: string;
  about: string;
}

export interface Replayed {
  matched: number;
  replayed: number;
}

export type RoleName = "viewer" | "uploader" | "operator" | "admin";

export interface Session {
  who: string;
  role: RoleName;
  projects: string[] | null;
  auth: "on" | "off";
}

/** The data of a server-sent event: of a step of the work, or of its progress. */
export interface Happening {
  series_instance_uid?: string;
  study_instance_uid?: string;
  job_id?: string;
  stage?: string;
  outcome?: string;
  reason?: string;
  step?: string;
  percent?: number | null;
}
