/** The files that were dropped or chosen. */

export interface Picked {
  file: File;
  /** Where it lies in the folder that was chosen: shown to whoever chose it, sent to nobody. */
  path: string;
}

const LEFT_OUT = /(^|\/)(\.|Thumbs\.db$|desktop\.ini$)/i;

/** Whether a file is one of the system's own, or empty. */
function isWanted({ file, path }: Picked): boolean {
  return file.size > 0 && !LEFT_OUT.test(path);
}

/** The files of an `<input type="file">`. */
export function ofInput(input: HTMLInputElement): Picked[] {
  return [...(input.files ?? [])].map((file) => ({ file, path: file.webkitRelativePath || file.name })).filter(isWanted);
}

/** The files of what was dropped, folders and all. */
export async function ofDrop(transfer: DataTransfer, found: (count: number) => void): Promise<Picked[]> {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry()).filter((entry) => entry !== null);
  const picked: Picked[] = [];
  while (entries.length) {
    const entry = entries.pop();
    if (entry?.isFile) {
      picked.push({ file: await fileOf(entry as FileSystemFileEntry), path: entry.fullPath.replace(/^\//, "") });
      found(picked.length);
    } else if (entry?.isDirectory) {
      entries.push(...(await within(entry as FileSystemDirectoryEntry)));
    }
  }
  return picked.filter(isWanted);
}

function fileOf(entry: FileSystemFileEntry): Promise<File> {
  return new Promise((resolve, reject) => entry.file(resolve, reject));
}

async function within(folder: FileSystemDirectoryEntry): Promise<FileSystemEntry[]> {
  const reader = folder.createReader();
  const all: FileSystemEntry[] = [];
  for (;;) {
    const some = await new Promise<FileSystemEntry[]>((resolve, reject) => reader.readEntries(resolve, reject));
    if (!some.length) {
      return all;
    }
    all.push(...some); // a reader gives a hundred at a time
  }
}
