/** What the site adds to TypeDoc: titles of guides, the pages beside it, and a place for wide tables. */
import {cpSync, existsSync} from 'node:fs';
import {join} from 'node:path';
import {Converter, JSX, RendererEvent} from 'typedoc';

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

export function load(app) {
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
