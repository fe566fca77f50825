"""The operators of ONNX (and of its common extensions) by what they do to the axes and the values of a tensor."""

from __future__ import annotations


def _ops(names: str) -> frozenset[str]:
    return frozenset(names.split())


# operators whose first input and first output are N×C×H×W by definition, where they have rank 4
CHANNELS_FIRST = _ops(
    "Conv ConvTranspose FusedConv QLinearConv ConvInteger DeformConv MaxPool AveragePool LpPool GlobalAveragePool "
    "GlobalMaxPool GlobalLpPool MaxUnpool BatchNormalization InstanceNormalization GroupNormalization LRN "
    "DepthToSpace SpaceToDepth GridSample RoiAlign MaxRoiPool SpatialBN"
)
# operators whose outputs have the axes of their data inputs (of equal rank)
SAME_AXES = _ops(
    "Abs Acos Add And Asin Atan BitShift Cast CastLike Ceil Celu Clip Concat Cos Div Dropout Elu Equal Erf Exp "
    "Floor Gelu Greater GreaterOrEqual HardSigmoid HardSwish Hardmax Identity LayerNormalization LeakyRelu Less "
    "LessOrEqual LogSoftmax Log LpNormalization Max Mean MeanVarianceNormalization Min Mish Mod Mul Neg Not Or "
    "PRelu Pad Pow Reciprocal Relu Resize Round Selu Shrink Sigmoid Sign Sin Slice Softmax Softplus Softsign "
    "Split Sqrt Sub Sum Swish Tan Tanh ThresholdedRelu Trilu Upsample Where Xor QuantizeLinear DequantizeLinear "
    "FakeQuantize QuickGelu BiasGelu FastGelu QLinearAdd QLinearMul QLinearSigmoid QLinearLeakyRelu "
    "QLinearSoftmax QLinearConcat SkipLayerNormalization ImageScaler Affine Scale ParametricSoftplus ScaledTanh "
    "RMSNormalization DynamicQuantizeLinear"
) | (CHANNELS_FIRST - {"RoiAlign", "MaxRoiPool", "GlobalLpPool"})
REDUCTIONS = _ops(
    "ReduceMean ReduceSum ReduceMax ReduceMin ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceProd ReduceSumSquare"
)
CHANNELWISE = _ops("Add Sub Mul Div PRelu")
MATMULS = _ops("MatMul QLinearMatMul MatMulInteger")
ELEMENTWISE_INPUTS = _ops(
    "Add And Concat Div Equal Greater GreaterOrEqual Less LessOrEqual Max Mean Min Mod Mul Or Pow PRelu Sub Sum "
    "Where Xor QLinearAdd QLinearMul QLinearConcat"
)
# ops that move values and do not change them (or only round them)
PLUMBING = _ops(
    "Identity Dropout Cast CastLike Reshape Flatten Squeeze Unsqueeze QuantizeLinear DequantizeLinear "
    "DynamicQuantizeLinear"
)
AFFINE = _ops("Add Sub Mul Div BatchNormalization")
SOFTMAXES = _ops("Softmax LogSoftmax QLinearSoftmax")
WEIGHTED = _ops(
    "Conv ConvTranspose FusedConv QLinearConv ConvInteger DeformConv Gemm FusedGemm MatMul FusedMatMul "
    "QLinearMatMul MatMulInteger MatMulNBits QGemm LSTM GRU RNN Attention MultiHeadAttention Einsum NhwcConv"
)
CLASSIFIERS = _ops("Gemm FusedGemm QGemm MatMul FusedMatMul QLinearMatMul MatMulInteger MatMulNBits Conv QLinearConv")
POOLS = _ops(
    "MaxPool AveragePool LpPool GlobalAveragePool GlobalMaxPool GlobalLpPool QLinearGlobalAveragePool "
    "QLinearAveragePool"
)
# ops that end no stage: they move, cut, widen or summarise what a stage has made
MOVERS = POOLS | _ops(
    "Pad Reshape Flatten Squeeze Unsqueeze Transpose Slice Split Gather Resize Upsample DepthToSpace SpaceToDepth "
    "Expand Tile Identity Dropout Cast QuantizeLinear DynamicQuantizeLinear"
)
# ops that carry a stage on: what follows them is a better end of the stage than what stands before
ONWARD = (SAME_AXES | REDUCTIONS) - WEIGHTED - POOLS - {"Pad", "Slice", "Split", "Resize", "Upsample", "Concat"}
CONVOLUTIONS = _ops("Conv ConvTranspose FusedConv")
WINDOWED = _ops("Conv FusedConv QLinearConv ConvInteger DeformConv MaxPool AveragePool LpPool")
# these read the shape of their input and nothing of its values
SHAPE_READERS = _ops("Shape Size")
RANDOM = _ops("RandomNormal RandomUniform RandomNormalLike RandomUniformLike Bernoulli Multinomial")
# ops by which exporters compute with shapes: evaluated where all that they read is known and small
FOLDED = _ops(
    "Constant Identity Gather Concat Squeeze Unsqueeze Slice Cast Reshape ConstantOfShape Range Expand Add Sub Mul Div "
    "Neg Floor Ceil Equal Where ReduceProd"
)
