"""What the package uses of PyObjC's MetalPerformanceShaders: Apple's two classes, after Apple's table
(apple.py), so that all of the comparison with them runs where they are not."""

import types

import numpy as np
import objc

from jax_mps_neuron import Neuron, NeuronType
from jax_mps_neuron._core.descriptor import parameters_of
from support import apple

MPSDataTypeFloat32 = 0x10000020
MPSDataTypeFloat16 = 0x10000010
_DTYPES = {MPSDataTypeFloat32: np.float32, MPSDataTypeFloat16: np.float16}


class _Allocated:
    @classmethod
    def alloc(cls):
        return cls()


class MPSMatrixDescriptor:
    @staticmethod
    def matrixDescriptorWithRows_columns_rowBytes_dataType_(rows, columns, row_bytes, kind):  # noqa: N802
        assert row_bytes == columns * np.dtype(_DTYPES[kind]).itemsize
        return types.SimpleNamespace(shape=(rows, columns), dtype=_DTYPES[kind])


class MPSVectorDescriptor:
    @staticmethod
    def vectorDescriptorWithLength_dataType_(length, kind):  # noqa: N802
        return types.SimpleNamespace(shape=(length,), dtype=_DTYPES[kind])


class _Array(_Allocated):
    def initWithBuffer_descriptor_(self, buffer, descriptor):  # noqa: N802
        self.array = buffer.bytes.view(descriptor.dtype).reshape(descriptor.shape)
        return self


class MPSMatrix(_Array):
    pass


class MPSVector(_Array):
    pass


class _Kernel(_Allocated):
    def initWithDevice_(self, device):  # noqa: N802
        assert device.newCommandQueue()
        self.alpha = 1.0
        return self

    def setNeuronType_parameterA_parameterB_parameterC_(self, kind, a, b, c):  # noqa: N802
        if kind == NeuronType.PRELU:
            raise objc.error("NSInvalidArgumentException - PReLU has parameters for each channel")
        used = parameters_of(NeuronType(kind))  # Apple ignores the others
        self.neuron = Neuron(NeuronType(kind), *(a, b, c)[: len(used)])

    def setNeuronToPReLUWithParametersA_(self, slopes):  # noqa: N802
        self.neuron = Neuron.prelu(np.frombuffer(slopes, np.float32))

    def setAlpha_(self, alpha):  # noqa: N802
        self.alpha = alpha


class MPSMatrixNeuron(_Kernel):
    def encodeToCommandBuffer_inputMatrix_biasVector_resultMatrix_(self, commands, x, bias, y):  # noqa: N802
        def run():
            y.array[:] = apple.neuron(x.array, self.neuron, bias.array, self.alpha)

        commands.encoders.append(types.SimpleNamespace(ended=True, work=[run]))


class MPSMatrixNeuronGradient(_Kernel):
    def encodeToCommandBuffer_gradientMatrix_inputMatrix_biasVector_resultGradientForDataMatrix_resultGradientForBiasVector_(  # noqa: E501, N802
        self, commands, gradient, x, bias, data, sums
    ):
        def run():
            result = apple.neuron_gradient(gradient.array, x.array, self.neuron, bias.array, self.alpha)
            data.array[:] = result.data
            sums.array[:] = result.bias

        commands.encoders.append(types.SimpleNamespace(ended=True, work=[run]))
