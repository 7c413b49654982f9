// validate.mjs ASYNCAPI: what the official parser thinks of the document. An error fails; warnings are shown.

import { readFileSync } from 'node:fs';
import { DiagnosticSeverity, Parser } from '@asyncapi/parser';

const { document, diagnostics } = await new Parser().parse(readFileSync(process.argv[2], 'utf8'));
const WORDS = ['error', 'warning', 'info', 'hint'];
for (const { severity, message, path, code } of diagnostics) console.error(`${WORDS[severity]}: ${path.join('.')}: ${message} (${code})`);
if (!document || diagnostics.some(({ severity }) => severity === DiagnosticSeverity.Error)) process.exit(1);
