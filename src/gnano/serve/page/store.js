// @ts-check
/** Chats and documents in IndexedDB, which http on a local network has too. */

/** @type {Promise<IDBDatabase> | null} */
let database = null;
/** @type {Map<string, number>} */
const timers = new Map();

function open() {
  database ??= new Promise((resolve, reject) => {
    const opening = indexedDB.open("gnano", 1);
    opening.onupgradeneeded = () => opening.result.createObjectStore("items", { keyPath: "id" });
    opening.onsuccess = () => resolve(opening.result);
    opening.onerror = () => reject(opening.error);
  });
  return database;
}

/** @param {IDBTransactionMode} mode @param {(items: IDBObjectStore) => IDBRequest} action @returns {Promise<any>} */
async function run(mode, action) {
  const items = (await open()).transaction("items", mode).objectStore("items");
  return new Promise((resolve, reject) => {
    const asked = action(items);
    asked.onsuccess = () => resolve(asked.result);
    asked.onerror = () => reject(asked.error);
  });
}

/** Return the saved items of a kind, the last changed first; none if the browser keeps nothing.
 * @param {string} kind @returns {Promise<any[]>} */
export async function loadItems(kind) {
  const saved = await run("readonly", (store) => store.getAll()).catch(() => []);
  const items = new Map(saved.filter((/** @type {any} */ i) => i.kind === kind).map((/** @type {any} */ i) => [i.id, i]));
  for (const item of takeLeft(kind)) {
    if (!(items.get(item.id)?.updated > item.updated)) items.set(item.id, item);
  }
  return [...items.values()].sort((a, b) => b.updated - a.updated);
}

/** Write items of a kind as the page goes away, when a database no longer finishes its writes.
 * @param {string} kind @param {any[]} items */
export function saveOnLeave(kind, items) {
  try {
    if (items.length) localStorage.setItem(`gnano-left-${kind}`, JSON.stringify(items));
  } catch {
    // too large: the database has all but the last half second
  }
}

/** Return what `saveOnLeave` wrote, once. @param {string} kind @returns {any[]} */
function takeLeft(kind) {
  try {
    const items = JSON.parse(localStorage.getItem(`gnano-left-${kind}`) ?? "[]");
    localStorage.removeItem(`gnano-left-${kind}`);
    return items;
  } catch {
    return [];
  }
}

/** Write an item now. @param {any} item */
export function saveItem(item) {
  clearTimeout(timers.get(item.id));
  timers.delete(item.id);
  return run("readwrite", (store) => store.put(item)).catch(() => {});
}

/** Write an item within half a second, for one that changes with every token. @param {any} item */
export function saveSoon(item) {
  if (!timers.has(item.id)) timers.set(item.id, setTimeout(() => saveItem(item), 500));
}

/** @param {string} id */
export function removeItem(id) {
  clearTimeout(timers.get(id));
  return run("readwrite", (store) => store.delete(id)).catch(() => {});
}

/** Return an item that has a new name; random names of the browser need https. @param {string} kind */
export function newItem(kind) {
  const now = Date.now();
  const id = `${kind}-${now.toString(36)}-${Math.floor(Math.random() * 2 ** 32).toString(36)}`;
  return { id, kind, title: "", created: now, updated: now };
}
