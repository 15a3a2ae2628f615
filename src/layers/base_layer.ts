/** The class under all layers of this package. */
import {type serialization, type Tensor, tidy} from '@tensorflow/tfjs-core';
import type {layers, LayerVariable} from '@tensorflow/tfjs-layers';
import type {LayerArgs} from './layer_arguments';
import {assertInputs, type Inputs, type Kwargs, onlyShape, type Shape} from './layer_calls';
import type {TfjsLayers, WeightParts, WeightSpec} from './weight_parts';

/** What a layer makes of its arguments before it exists. */
export type CheckedArgs<Options, Parts> = {
  /** The name of the layer's function, for errors. */
  opName: string;
  /** Arguments with their defaults, which getConfig gives. */
  options: Options;
  /** Default: the layer has no weights. */
  weightParts?: WeightParts<Parts>;
};

export interface BaseLayer<Options, Parts, WeightName extends string> extends layers.Layer {
  readonly options: Options;
  /** The initializers, regularizers and constraints of the weights. */
  readonly parts: Parts;
  readonly variables: Partial<Record<WeightName, LayerVariable>>;
  /** The output for inputs, which are tensors that the layer takes. `call` runs it in tf.tidy. */
  forward(inputs: Tensor[], kwargs: Kwargs): Tensor;
  /** Adds a weight to `variables`. */
  addNamedWeight(spec: WeightSpec<WeightName>): void;
  /** The value of a weight, undefined if the layer does not have it. */
  read<T extends Tensor>(name: WeightName): T | undefined;
  /** Calls `dispose` when the layer's weights are disposed of, by this layer or by one around it. */
  whenDisposed(dispose: () => void): void;
}

export type BaseLayerClass = new <Options extends object, Parts, WeightName extends string>(
  args: LayerArgs | null | undefined,
  checked: CheckedArgs<Options, Parts>,
) => BaseLayer<Options, Parts, WeightName>;

/**
 * The class for one copy of tfjs. It checks inputs with errors of this package, passes masks on, has outputs of the
 * input's shape, keeps weights by their names, and saves its options. A layer adds `build` and `forward`.
 */
export function makeBaseLayer(tf: TfjsLayers): BaseLayerClass {
  abstract class BaseLayerOfTf<Options extends object, Parts, WeightName extends string> extends tf.layers.Layer {
    readonly options: Options;
    readonly parts: Parts;
    readonly variables: Partial<Record<WeightName, LayerVariable>> = {};
    private readonly opName: string;
    private readonly weightParts: WeightParts<Parts> | undefined;

    constructor(args: LayerArgs, {opName, options, weightParts}: CheckedArgs<Options, Parts>) {
      super(args);
      this.options = options;
      this.parts = weightParts?.parts as Parts;
      this.opName = opName;
      this.weightParts = weightParts;
      this.supportsMasking = true;
    }

    abstract forward(inputs: Tensor[], kwargs: Kwargs): Tensor;

    override apply(inputs: Inputs, kwargs?: Kwargs): ReturnType<layers.Layer['apply']> {
      assertInputs(this, inputs, tf, this.opName);
      return super.apply(inputs, kwargs);
    }

    override computeOutputShape(inputShape: Shape): Shape {
      return onlyShape(inputShape);
    }

    override call(inputs: Tensor | Tensor[], kwargs: Kwargs): Tensor {
      return tidy(() => {
        this.invokeCallHook(inputs, kwargs);
        return this.forward([inputs].flat(), kwargs);
      });
    }

    override getConfig(): serialization.ConfigDict {
      return {...super.getConfig(), ...this.options, ...this.weightParts?.getConfig()};
    }

    addNamedWeight({
      name,
      shape,
      dtype,
      initializer,
      regularizer,
      constraint,
      trainable,
    }: WeightSpec<WeightName>): void {
      // tf.layers asks for objects of its own classes, but calls only their method `apply`.
      this.variables[name] = this.addWeight(
        name,
        shape,
        dtype ?? 'float32',
        initializer as never,
        regularizer as never,
        trainable ?? true,
        constraint as never,
      );
    }

    read<T extends Tensor>(name: WeightName): T | undefined {
      return this.variables[name]?.read() as T | undefined;
    }

    /** A layer around this one disposes of the weights alone, and calls nothing of this layer. */
    whenDisposed(dispose: () => void): void {
      const [variable] = this.weights;
      const disposeVariable = variable.dispose.bind(variable);
      variable.dispose = () => {
        dispose();
        disposeVariable();
      };
    }
  }
  return BaseLayerOfTf as unknown as BaseLayerClass;
}
