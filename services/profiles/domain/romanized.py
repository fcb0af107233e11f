"""Surnames as Hong Kong, Macao, Taiwan and overseas Chinese spell them, with their readings in pinyin.

Hong Kong Government Cantonese, Wade–Giles without its marks, and Hokkien and Teochew as in Singapore and Malaysia. One
spelling stands for several surnames: Wong is 王 or 黄. Written for this project.
"""

_SPELLINGS = """
au ou|auyeung ouyang|chai cai|chak zhai|cham zhan|chan chen zhan|chang zhang|chao zhao|chau zhou qiu|che xie
cheng zheng|cheong zhang|cheuk zhuo|cheung zhang jiang|chew zhou|chi qi|chia xie|chiang jiang|chien qian jian
chik qi|chim zhan|chin qian jin chen|ching cheng|chiu zhao qiu|cho cao zuo|choi cai cui|chong zhang zhuang|chou zhou
chow zhou|choy cai|chu zhu|chua cai|chuang zhuang|chui xu cui|chun qin|chung zhong zheng|eng huang|fok huo|foo fu hu
fung feng|gan yan|goh wu|ha xia|hau hou|heng wang|heung xiang|hiew qiu|ho he|hon han|hong kong|hsi xi|hsia xia
hsiang xiang|hsiao xiao|hsieh xie|hsiung xiong|hsu xu|hsueh xue|hui xu|hung kong|hwang huang|ip ye|jao rao|jen ren
jim zhan|kai jie|kam gan jin|kan jian gan|kang jiang|kao gao|kee ji|khoo qiu|khor xu|ki ji|ko gao ke|koh xu gao
koo gu|kuan guan|kuk gu|kung gong|kuo guo|kwan guan|kwee guo|kwik guo|kwok guo|kwong kuang|lai li|lam lin
lau liu lou|law luo|lay li|lee li|leong liang|leow liao|leung liang|lew liu|liaw liao|liew liu|lim lin|liong liang
lo luo lu|loh luo lu|loke lu|look lu|loong long|low liu lu|lui lei lv|luk lu|lum lin|lun lin|mak mai|man wen|mau mao
mok mo|mong meng|mui mei|ng wu huang|ngai wei|ngan yan|nip nie|ong wang|ooi huang|oon wen|pai bai|pang peng feng
pau bao|phua pan|pong pang|poon pan|pow bao|pun pan|quah ke|quek guo|sam shen|seah xie|see shi|seto situ
sham cen shen|shek shi|shih shi|shing sheng|shiu shao|shum shen cen|shun sun|sieh xie|sim shen|sin xian shan|sit xue
siu xiao|so su|soh su|soo su|soong song|suen sun|sui shui|sum cen|sung song|sze shi|szeto situ|tai dai|tam tan
tan chen|tang deng|tay zheng|te zheng|tee zheng|teh zheng|teng deng|teo zhang|teoh zhang|ting ding|to du|toh zhuo du
tong tang|tsai cai|tsang zeng|tsao cao|tse xie|tseng zeng|tsin qian|tso zuo|tsoi cai|tsou zou|tsui xu cui|tu du
tuen duan|tung dong|un yuan|wai wei|wan wen yun|wee huang|wing rong|wong wang huang|woo hu|wu hu|yam ren yin
yan ren yin|yap ye|yau qiu you|yee yu|yeh ye|yen yan|yeo yang|yeoh yang|yeow yao|yeung yang|yick yi|yik yi|yim yan
yin yan|yip ye|yiu yao|yong yang|yoon yin|young yang|yow qiu|yue yu|yuen yuan ruan|yung rong weng
"""
READINGS: dict[str, tuple[str, ...]] = {
    spelling: tuple(readings)
    for spelling, *readings in (entry.split() for line in _SPELLINGS.split("\n") if line for entry in line.split("|"))
}


def is_romanized_surname(word: str) -> bool:
    """Say whether a word is a Chinese surname in a spelling other than pinyin."""
    return word.casefold() in READINGS
