/** What every view is given. */

import type { RoleName, Session } from "./types";

/** Where the view is, who looks, and the signal that ends it. */
export interface Context {
  path: string[];
  parameters: URLSearchParams;
  session: Session;
  signal: AbortSignal;
}

export type View = (context: Context) => HTMLElement;

const LADDER: RoleName[] = ["viewer", "uploader", "operator", "admin"];

/** Whether a session's role is that one or above. */
export function may(session: Session, role: RoleName): boolean {
  return LADDER.indexOf(session.role) >= LADDER.indexOf(role);
}
