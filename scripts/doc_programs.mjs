/** The programs in the pages of the documentation, as tests run them. */

/**
 * Programs of a page of Markdown, and what each prints first. A ```js block that begins with imports is a program, and
 * ```js blocks after it go on with it. A ```html block is a page. A ```text block says what the program before it has
 * printed until then.
 */
export function programsOf(markdown) {
  const programs = [];
  for (const [, language, text] of markdown.matchAll(/^```(js|html|text)\n([^]*?)^```$/gm)) {
    const isProgram = language === 'html' || (language === 'js' && text.startsWith('import '));
    if (isProgram) {
      programs.push({language, code: '', printed: ''});
    }
    const program = programs.at(-1);
    if (program == null || (language === 'js' && program.language === 'html')) {
      throw new Error(`This block belongs to no program:\n${text}`);
    }
    program[language === 'text' ? 'printed' : 'code'] += text;
  }
  return programs;
}

/**
 * Excerpts of a page: blocks whose language is followed by the path of a file of the repository. A line of `…` stands
 * for what is left out. Gives `{path, parts}` of each.
 */
export function excerptsOf(markdown) {
  return [...markdown.matchAll(/^```\w+ (\S+)\n([^]*?)^```$/gm)].map(([, path, text]) => ({
    path,
    parts: text.split(/^ *(?:\/\/ )?…\n/m),
  }));
}
