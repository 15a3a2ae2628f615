/** What the site adds to TypeDoc: titles of guides, ops as functions, and links to the pages beside it. */
import {cpSync, existsSync} from 'node:fs';
import {join} from 'node:path';
import {Converter, JSX, ReflectionFlag, ReflectionKind, ReflectionType, RendererEvent} from 'typedoc';

const build = join(import.meta.dirname, '..', 'build');
/** Pages that other commands build, as folders of the site. They are left out where they are not built. */
const neighbours = [
  {name: 'Live page', from: join(build, 'demo'), folder: 'demo', page: 'demo/index.html'},
  {name: 'Check your device', from: join(build, 'device_check'), folder: 'check', page: 'check/check.html'},
].filter(({from}) => existsSync(from));

const titleOf = ({content}) =>
  content
    .map(({text}) => text)
    .join('')
    .match(/^# (.*)$/m)[1];

/** An op is a constant, made by tf.op, and is used as a function. */
function showAsFunction(variable) {
  const signatures = variable.type instanceof ReflectionType ? variable.type.declaration.signatures : undefined;
  if (signatures != null) {
    signatures.forEach((signature) => {
      signature.name = variable.name;
      signature.parent = variable;
      signature.comment = variable.comment;
    });
    const kind = ReflectionKind.Function;
    Object.assign(variable, {kind, signatures, comment: undefined, type: undefined, defaultValue: undefined});
    variable.setFlag(ReflectionFlag.Const, false);
  }
}

/** Before TypeDoc gives comments to signatures. */
const FIRST = 10_000;

export function load(app) {
  app.converter.on(
    Converter.EVENT_RESOLVE_BEGIN,
    ({project}) => project.getReflectionsByKind(ReflectionKind.Variable).forEach(showAsFunction),
    FIRST,
  );
  app.converter.on(Converter.EVENT_CREATE_DOCUMENT, (context, document) => {
    document.name = titleOf(document);
  });
  app.renderer.hooks.on('sidebar.begin', (context) => {
    const links = neighbours.map(({name, page}) =>
      JSX.createElement('li', null, JSX.createElement('a', {href: context.relativeURL(page)}, name)),
    );
    return links.length === 0
      ? JSX.createElement(JSX.Fragment, null)
      : JSX.createElement('ul', {class: 'beside'}, ...links);
  });
  app.renderer.on(RendererEvent.END, ({outputDirectory}) => {
    neighbours.forEach(({from, folder}) => cpSync(from, join(outputDirectory, folder), {recursive: true}));
  });
}
