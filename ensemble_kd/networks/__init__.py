"""Reference networks, and cutting a network in two.

Every network here is an ``nn.Sequential`` whose children, and the stages inside them, run one after
the other, and keeps each constructor argument as a plain attribute of the same name.
"""

from ensemble_kd.networks.blocks import Residual
from ensemble_kd.networks.cnn import Cnn
from ensemble_kd.networks.cut import Halves, check_cut, cut
from ensemble_kd.networks.mlp import Mlp
from ensemble_kd.networks.mobilenet import MobileNetV2
from ensemble_kd.networks.multi_head import MultiHead, Tasked
from ensemble_kd.networks.resnet import ResNet
from ensemble_kd.networks.shufflenet import ShuffleNetV2
from ensemble_kd.networks.vgg import Vgg
from ensemble_kd.networks.wide_resnet import WideResNet

__all__ = [
    "Cnn",
    "Halves",
    "Mlp",
    "MobileNetV2",
    "MultiHead",
    "ResNet",
    "Residual",
    "ShuffleNetV2",
    "Tasked",
    "Vgg",
    "WideResNet",
    "check_cut",
    "cut",
]
