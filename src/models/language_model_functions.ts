/** The functions that make models, for one copy of tfjs. */
import {type LoadMoeLanguageModel, makeLoadMoeLanguageModel} from './load_moe_language_model';
import {makeMoeLanguageModel, type MoeLanguageModel} from './moe_language_model';
import type {TfjsModels} from './new_layers';

export type LanguageModelFunctions = {
  /** A language model with new weights, from config.json: {@link MoeLanguageModel}. */
  moeLanguageModel: MoeLanguageModel;
  /** A language model with the weights of a Hugging Face checkpoint: {@link LoadMoeLanguageModel}. */
  loadMoeLanguageModel: LoadMoeLanguageModel;
};

export const languageModelFunctions = (tf: TfjsModels): LanguageModelFunctions => ({
  moeLanguageModel: makeMoeLanguageModel(tf),
  loadMoeLanguageModel: makeLoadMoeLanguageModel(tf),
});
