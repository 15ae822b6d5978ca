// The form of options, built from the server's description of them.

const ALTERNATIVES = 3; // captions asked for at first, where the server's search finds as many

// Fills `list` with one field an option, and keeps what the user had chosen before.
export function showOptions(list, options) {
  const before = chosen(list);
  const fields = Object.entries(options).map(([name, option]) => field(name, option));
  list.replaceChildren(...fields);
  const beams = options.num_beams?.default ?? 1;
  if (options.num_captions && !("num_captions" in before) && !list.dataset.filled) {
    before.num_captions = String(Math.min(ALTERNATIVES, beams, options.num_captions.to));
  }
  list.dataset.filled = "yes";
  for (const input of list.querySelectorAll("input")) input.value = before[input.name] ?? "";
}

// Options that differ from the server's defaults: name -> text.
export function chosen(list) {
  const given = {};
  for (const input of list.querySelectorAll("input")) {
    if (input.value !== "" && input.value !== input.placeholder) given[input.name] = input.value;
  }
  return given;
}

// Empties every field, so that the server's defaults are used.
export function clearOptions(list) {
  for (const input of list.querySelectorAll("input")) input.value = "";
}

function field(name, option) {
  const whole = option.type === "int";
  const text = option.type === "str";
  const input = document.createElement("input");
  Object.assign(input, {
    id: `option-${name}`, name, type: text ? "text" : "number", autocomplete: "off",
  });
  input.placeholder = String(option.default);
  if (text) {
    input.maxLength = option.to;
  } else {
    input.min = option.from;
    input.max = option.to;
    input.step = whole ? 1 : "any";
    input.inputMode = whole && option.from >= 0 ? "numeric" : "text";
  }

  const label = document.createElement("label");
  label.htmlFor = input.id;
  label.textContent = name.replaceAll("_", " ").replace("num ", "number of ");

  const help = document.createElement("p");
  help.id = `help-${name}`;
  help.className = "help";
  const limit = document.createElement("span");
  limit.className = "limit";
  limit.textContent = text
    ? `(at most ${option.to} characters)`
    : `(${option.from} to ${option.to}, default ${option.default})`;
  help.append(option.help, " ", limit);
  input.setAttribute("aria-describedby", help.id);

  const row = document.createElement("div");
  row.className = "option";
  row.append(label, input, help);
  return row;
}
