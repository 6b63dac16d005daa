"""Reference networks, and cutting a network in two.

Every network here keeps each constructor argument as a plain attribute of the same name. All but
those that wrap others are an ``nn.Sequential`` whose children, and the stages inside them, run one
after the other; of a network for texts the first child takes ``Tokens``.
"""

from ensemble_kd.networks.bert import Bert
from ensemble_kd.networks.bilstm import BiLstm
from ensemble_kd.networks.blocks import Residual
from ensemble_kd.networks.cnn import Cnn
from ensemble_kd.networks.cut import Halves, check_cut, cut
from ensemble_kd.networks.early_exit import EarlyExit
from ensemble_kd.networks.mlp import Mlp
from ensemble_kd.networks.mobilebert import MobileBert
from ensemble_kd.networks.mobilenet import MobileNetV2
from ensemble_kd.networks.multi_head import MultiHead, Tasked
from ensemble_kd.networks.pretrained import Transformers
from ensemble_kd.networks.resnet import ResNet
from ensemble_kd.networks.shufflenet import ShuffleNetV2
from ensemble_kd.networks.timm import TimmNetwork
from ensemble_kd.networks.vgg import Vgg
from ensemble_kd.networks.wide_resnet import WideResNet

__all__ = [
    "Bert",
    "BiLstm",
    "Cnn",
    "EarlyExit",
    "Halves",
    "Mlp",
    "MobileBert",
    "MobileNetV2",
    "MultiHead",
    "ResNet",
    "Residual",
    "ShuffleNetV2",
    "Tasked",
    "TimmNetwork",
    "Transformers",
    "Vgg",
    "WideResNet",
    "check_cut",
    "cut",
]
