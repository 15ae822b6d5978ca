// The page's request as a program sends it: curl and Python.

// address: of POST /v1/captions. file: name of the picture. options: name -> text.
// withKey: the server asks for a key, which is then read from the environment: CLIPCAP_KEY.
export function asCurl({ address, file, options, withKey }) {
  const fields = Object.entries(options).map(([name, value]) => `-F ${word(`${name}=${value}`)}`);
  const lines = [`curl ${word(address)}`, `-F ${word(`data=@${formFile(file)}`)}`, ...fields];
  if (withKey) lines.splice(1, 0, '-H "Authorization: Bearer $CLIPCAP_KEY"');
  return lines.join(" \\\n  ");
}

export function asPython({ address, file, options, withKey }) {
  const fields = Object.entries(options).map(
    ([name, value]) => `${JSON.stringify(name)}: ${JSON.stringify(value)}`,
  );
  return [
    ...(withKey ? ["import os", ""] : []),
    "import httpx",
    "",
    `with open(${JSON.stringify(file)}, "rb") as picture:`,
    "    reply = httpx.post(",
    `        ${JSON.stringify(address)},`,
    ...(withKey ? ['        headers={"Authorization": f"Bearer {os.environ[\'CLIPCAP_KEY\']}"},'] : []),
    '        files={"data": picture},',
    ...(fields.length > 0 ? [`        data={${fields.join(", ")}},`] : []),
    "        timeout=60,",
    "    )",
    "print(reply.text)",
  ].join("\n");
}

// One word of a shell command.
function word(text) {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}

// A file name as curl -F reads it: quoted where it holds a comma, a semicolon or a quote.
function formFile(name) {
  return /[,;"\\]/.test(name) ? `"${name.replace(/["\\]/g, "\\$&")}"` : name;
}
