"""Tells Chinese names in Latin letters from others: which words are pinyin, and which of those are surnames."""

import re

_SYLLABLE = (
    "(?:[zcs]h?[aeu]|[zcs]h?(?:ai|ei|ao|ou|an|en|ang|eng|ong|uo|ui|un|uan)|[zc]?shi|zhi|chi|[zcsr]i"
    "|zhu(?:a|ai|ang)|chu(?:a|ai|ang)|shu(?:a|ai|ang)"
    "|r(?:e|u|ao|ou|an|en|ang|eng|ong|uo|ui|un|uan)"
    "|[bpm](?:a|o|ai|ei|ao|an|en|ang|eng|i|ie|iao|ian|in|ing|u)|m(?:e|ou|iu)|pou|f(?:a|o|ei|ou|an|en|ang|eng|u)"
    "|[dtnl](?:a|e|ai|ei|ao|ou|an|en|ang|eng|ong|i|ia|ie|iao|iu|ian|in|ing|iang|u|uo|ui|un|uan|v|ve|ue)"
    "|[gkh](?:a|e|ai|ei|ao|ou|an|en|ang|eng|ong|u|ua|uo|uai|ui|un|uan|uang)"
    "|[jqx](?:i|ia|ie|iao|iu|ian|in|ing|iang|iong|u|ue|un|uan)"
    "|y(?:a|e|i|o|ao|ou|an|in|ang|ing|ong|u|ue|un|uan)|w(?:a|o|ai|ei|an|en|ang|eng|u)|er|[ae](?:i|n|ng)?|ao|ou?)"
)
_ONE = re.compile(_SYLLABLE, re.IGNORECASE)
_WORD = re.compile(f"{_SYLLABLE}{{1,3}}", re.IGNORECASE)
_SURNAMES_WORDS = """
li wang zhang liu chen yang zhao huang zhou wu xu sun hu zhu gao lin he guo ma luo liang song zheng xie han tang feng
yu dong xiao cheng cao yuan deng fu shen zeng peng lv lyu su lu jiang cai jia ding wei xue ye yan pan du dai xia zhong
tian ren fan fang shi yao tan liao zou xiong jin hao kong bai cui kang mao qiu qin gu hou shao meng long wan duan lei
qian yin yi chang wen niu ge tu hong gong pang shu qi bi bo hua ji ning nie ou ouyang pei qiao qu rao ruan sang sha
shang shan sheng sima situ tao tong weng xi xing yue zha zhai zhan zhen zhuang zhuge zuo zong zang ai an ao bao bian
cen chai che chi chu cong dou e fei gan geng gou guan gui hai heng huan huo jian jiao jing ju ke kuang lai lan lang
lao le leng lian ling liao lou mei mi miao min ming mo mou mu na nan nong pi piao pu rong shangguan shuai si sui tai
tong tu wa wo wu xian xiahou xin xuan ya ying you yun ze zhuo zi zu linghu huangfu murong dongfang nangong
"""
_SURNAMES = frozenset(_SURNAMES_WORDS.split())


def is_pinyin(word: str) -> bool:
    """Say whether a word is one to three syllables of pinyin without tones, hyphens aside."""
    return _WORD.fullmatch(word.replace("-", "").replace("'", "").replace("’", "")) is not None


def is_syllable(word: str) -> bool:
    """Say whether a word is one syllable of pinyin without tones."""
    return _ONE.fullmatch(word) is not None


def is_pinyin_surname(word: str) -> bool:
    """Say whether a word is a Chinese surname in pinyin."""
    return word.casefold() in _SURNAMES
