// One message on the page. Text is placed by its offset in UTF-16 units, which is what
// `string.length` counts, so joining again in the middle of an answer needs no other care.
// Whatever comes from the network is shown as text, never as markup.

const EMOJIS = ["👍", "❤️", "😂", "🎉"];

/** An element; `children` are elements or texts. */
export function part(tag, className, ...children) {
  const element = Object.assign(document.createElement(tag), { className });
  element.append(...children);
  return element;
}

function button(label, title, data) {
  const element = Object.assign(part("button", "", label), { type: "button", title });
  element.setAttribute("aria-label", title);
  Object.assign(element.dataset, data);
  return element;
}

const clock = (at) => (at ? new Date(at).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" }) : "");

export class Bubble {
  #reactions = new Map(); // emoji → who gave it
  #who = ""; #at; #edited = false;

  constructor(id) {
    this.id = id;
    [this.meta, this.body, this.note] = [part("span", "meta"), part("div", "text"), part("p", "note")];
    this.thoughts = part("p", "");
    this.thinking = part("details", "thinking", part("summary", "", "Thinking"), this.thoughts);
    this.thinking.hidden = true;
    this.node = this.body.appendChild(document.createTextNode(""));
    this.chips = part("div", "reactions");
    this.edit = button("Edit", "Edit this message", { do: "edit" });
    this.remove = button("Delete", "Delete this message", { do: "delete" });
    const emojis = EMOJIS.map((emoji) => button(emoji, `React with ${emoji}`, { do: "react", emoji }));
    this.actions = part("div", "actions", ...emojis, this.edit, this.remove);
    this.element = part("li", "message", this.meta, this.thinking, this.body, this.chips, this.note, this.actions);
    this.element.dataset.id = id;
    this.may({ edit: false, remove: false });
  }

  get length() { return this.node.length; }
  get text() { return this.node.data; }
  set text(text) { if (this.node.data !== text) this.node.data = text; }
  get isDeleted() { return "deleted" in this.element.dataset; }

  author(who, role, mine = false) {
    this.#who = who;
    this.element.dataset.role = role;
    this.element.toggleAttribute("data-mine", mine);
    this.#showMeta();
  }

  /** Shows it as it is stored. */
  show(message) {
    [this.#at, this.#edited] = [message.createdAt, message.isEdited];
    this.#showMeta();
    this.text = message.content;
    this.#reactions = new Map(message.reactions.map(({ emoji, userIds }) => [emoji, new Set(userIds)]));
    if (message.isDeleted) this.deleted();
  }

  deleted() {
    this.text = "Deleted";
    this.element.dataset.deleted = "";
    this.may({ edit: false, remove: false });
  }

  /** What the reader may do with it, besides reacting. */
  may({ edit, remove }) {
    this.edit.hidden = !edit || this.isDeleted;
    this.remove.hidden = !remove || this.isDeleted;
  }

  reacted(emoji, user, added) {
    const users = this.#reactions.get(emoji) ?? new Set();
    if (added) users.add(user); else users.delete(user);
    if (users.size) this.#reactions.set(emoji, users); else this.#reactions.delete(emoji);
  }

  showReactions(me, nameOf) {
    this.chips.replaceChildren(...[...this.#reactions].map(([emoji, users]) => {
      const chip = button(`${emoji} ${users.size}`, `${emoji} by ${[...users].slice(0, 20).map(nameOf).join(", ")}`, { do: "react", emoji });
      chip.setAttribute("aria-pressed", String(users.has(me)));
      return chip;
    }));
  }

  /** What a model thinks before it writes; shown to whoever opens it. */
  think(text) {
    this.thoughts.append(text);
    this.thinking.hidden = false;
  }

  /** It starts over. */
  restart() {
    this.text = "";
    this.thoughts.replaceChildren();
    this.thinking.hidden = true;
  }

  /** `false` where what comes before `delta` is not here yet. */
  place(offset, delta) {
    if (offset > this.length) return false;
    this.node.appendData(delta.slice(this.length - offset)); // Nothing of it where all of it is here.
    return true;
  }

  #showMeta() {
    this.meta.textContent = [this.#who, clock(this.#at), this.#edited && "edited"].filter(Boolean).join(" · ");
  }
}
