// The offset of Socket.IO's connection state recovery, taken apart and put together: to see what a
// client is told, and to make what no server ever told.

const LETTERS = ['session', 'subscribe', 'conversation', 'persona'];

/** Stands for an offset from which nothing can be recovered. */
export const NOWHERE = '-';

/** What an offset says: `{ dialect, places: [{ session, epoch, seq, part, ordinal, given, texts: [{ id, attempt, offset }] }] }`. */
export function readOffset(offset) {
  const [head, ...parts] = offset.split('!');
  return {
    dialect: LETTERS[head.charCodeAt(1) - 97],
    places: parts.map((part) => {
      const [session, cursor] = part.split('~');
      const bytes = [...Buffer.from(cursor, 'base64url')];
      const [epoch, seq, partOf, ordinal, given] = Array.from({ length: 5 }, () => take(bytes));
      const texts = [];
      while (bytes.length > 0) {
        texts.push({ id: Buffer.from(bytes.splice(0, 16)).toString('hex'), attempt: take(bytes), offset: take(bytes) });
      }
      return { session, epoch, seq, part: partOf, ordinal, given, texts };
    }),
  };
}

/** The offset that says this. */
export function writeOffset({ dialect, places }) {
  const parts = places.map(({ session, epoch, seq, part, ordinal, given = 0, texts }) => {
    const bytes = [epoch, seq, part, ordinal, given].flatMap(put);
    for (const { id, attempt, offset } of texts) bytes.push(...Buffer.from(id, 'hex'), ...put(attempt), ...put(offset));
    return `${session}~${Buffer.from(bytes).toString('base64url')}`;
  });
  return `1${String.fromCharCode(97 + LETTERS.indexOf(dialect))}!${parts.join('!')}`;
}

/** LEB128, as BigInt. */
function take(bytes) {
  let number = 0n;
  for (let shift = 0n; ; shift += 7n) {
    const byte = bytes.shift();
    number |= BigInt(byte & 127) << shift;
    if (byte < 128) return number;
  }
}

function put(number) {
  let left = BigInt(number);
  const bytes = [];
  for (; left > 127n; left >>= 7n) bytes.push(Number(left & 127n) | 128);
  return [...bytes, Number(left)];
}
